# TESSERA_SANITIZE=address,undefined (or thread): instruments Tessera and what links tessera_options, and
# gives every test of tessera_register_test the run-time options that Open MPI needs (TESSERA_TEST_ENVIRONMENT).
set(TESSERA_TEST_ENVIRONMENT "")
if(TESSERA_SANITIZE)
  target_compile_options(tessera_options INTERFACE -fsanitize=${TESSERA_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=undefined)
  target_link_options(tessera_options INTERFACE -fsanitize=${TESSERA_SANITIZE})
  set(is_program $<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>)
  target_sources(tessera_options INTERFACE
    $<${is_program}:${PROJECT_SOURCE_DIR}/share/sanitize/keep_plugins.cpp>)
  list(APPEND TESSERA_TEST_ENVIRONMENT
    "ASAN_OPTIONS=fast_unwind_on_malloc=0"
    "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/share/sanitize/leaks.supp:print_suppressions=0"
    "UBSAN_OPTIONS=print_stacktrace=1"
    "TSAN_OPTIONS=ignore_noninstrumented_modules=1")
endif()
