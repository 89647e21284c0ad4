# tessera_add_fuzz_target(<parser> sources...): builds fuzz_<parser> from fuzz_<parser>.cpp and those sources, and
# registers the test fuzz/<parser>. Only clang has libFuzzer, so clang compiles the sources a second time, with
# the sanitizers, and without optimisation, which would take most of the time; where there is none, the tests are
# skipped.
set(fuzz_flags -std=c++20 -O0 -gline-tables-only -fno-omit-frame-pointer
  -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined)

# The first clang++ whose libFuzzer and sanitizers work here.
function(find_fuzz_compiler)
  set(probe ${CMAKE_CURRENT_BINARY_DIR}/probe)
  foreach(name clang++-14 clang++-15 clang++-16 clang++-17 clang++-18 clang++-19 clang++)
    find_program(compiler_${name} ${name} NO_CACHE)
    if(compiler_${name})
      execute_process(COMMAND ${compiler_${name}} ${fuzz_flags} ${CMAKE_CURRENT_SOURCE_DIR}/probe.cpp -o ${probe}
        RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
      if(failed EQUAL 0)
        execute_process(COMMAND ${probe} -runs=1 RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
      endif()
      if(failed EQUAL 0)
        set(TESSERA_FUZZ_COMPILER ${compiler_${name}} CACHE FILEPATH "clang++ with libFuzzer")
        message(STATUS "Fuzz targets are compiled by ${TESSERA_FUZZ_COMPILER}")
        return()
      endif()
    endif()
  endforeach()
  message(STATUS "No clang++ with libFuzzer: the fuzz tests will be skipped (clang-14, libclang-rt-14-dev)")
endfunction()
if(NOT TESSERA_FUZZ_COMPILER)
  find_fuzz_compiler()
endif()

add_library(fuzz_flags INTERFACE)
target_link_libraries(fuzz_flags INTERFACE tessera::checkpoint tessera::model hdf5::hdf5
  nlohmann_json::nlohmann_json tomlplusplus::tomlplusplus CLI11::CLI11)
set(includes $<FILTER:$<TARGET_PROPERTY:fuzz_flags,INTERFACE_INCLUDE_DIRECTORIES>,EXCLUDE,^/usr/include$>)
set(definitions $<TARGET_PROPERTY:fuzz_flags,INTERFACE_COMPILE_DEFINITIONS>)
set(compile_fuzzed ${CMAKE_CXX_COMPILER_LAUNCHER} ${TESSERA_FUZZ_COMPILER} ${fuzz_flags}
  -I${PROJECT_SOURCE_DIR}/modules/checkpoint -I${PROJECT_SOURCE_DIR}/modules/model -I${PROJECT_SOURCE_DIR}/apps
  "$<$<BOOL:${definitions}>:-D$<JOIN:$<REMOVE_DUPLICATES:${definitions}>,$<SEMICOLON>-D>>"
  "$<$<BOOL:${includes}>:-isystem$<JOIN:$<REMOVE_DUPLICATES:${includes}>,$<SEMICOLON>-isystem>>")
# Of tessera_base, what is not fuzzed: the version, which its own build makes.
set(fuzz_libraries $<TARGET_FILE:tessera_base> $<TARGET_FILE:fmt::fmt> ${HDF5_C_LIBRARIES} ${MPI_C_LIBRARIES})

# The object file of a source, compiled once for all targets.
function(fuzzed_object source result)
  string(REPLACE ${PROJECT_SOURCE_DIR}/ "" name ${source})
  string(REPLACE ${CMAKE_CURRENT_BINARY_DIR}/ "" name ${name})
  string(REGEX REPLACE "[/.]+" "_" object ${name})
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${object}.o)
  get_source_file_property(is_known ${object} GENERATED)
  if(NOT is_known)
    add_custom_command(OUTPUT ${object} COMMAND ${compile_fuzzed} -MD -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d COMMENT "Fuzzing: ${name}" VERBATIM COMMAND_EXPAND_LISTS)
  endif()
  set(${result} ${object} PARENT_SCOPE)
endfunction()

function(tessera_add_fuzz_target parser)
  set(program "")
  if(TESSERA_FUZZ_COMPILER)
    set(program ${CMAKE_CURRENT_BINARY_DIR}/fuzz_${parser})
    set(objects "")
    foreach(source IN ITEMS ${CMAKE_CURRENT_SOURCE_DIR}/fuzz_${parser}.cpp LISTS ARGN)
      fuzzed_object(${source} object)
      list(APPEND objects ${object})
    endforeach()
    add_custom_command(OUTPUT ${program} DEPENDS ${objects} tessera_base VERBATIM COMMAND_EXPAND_LISTS
      COMMAND ${TESSERA_FUZZ_COMPILER} ${fuzz_flags} ${objects} -Wl,--as-needed ${fuzz_libraries} -o ${program})
    set(fuzz_programs ${fuzz_programs} ${program} PARENT_SCOPE)
  endif()
  add_test(NAME fuzz/${parser} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/run.sh "${program}")
  set_tests_properties(fuzz/${parser} PROPERTIES LABELS fuzz TIMEOUT 60 SKIP_RETURN_CODE 77)
endfunction()
