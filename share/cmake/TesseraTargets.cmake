# tessera_library(<name> SOURCES a.cpp ... [HEADERS a.hpp ...] [PUBLIC targets] [PRIVATE targets])
# One library per folder, named tessera_<name> with the alias tessera::<name>. Headers of src/ are included
# as "<folder>/x.hpp", those of modules/ as <tessera/<module>/x.hpp>. HEADERS: those of src/ that are installed, because
# a header of a module includes them or because users need them.
add_library(tessera_options INTERFACE)
target_compile_features(tessera_options INTERFACE cxx_std_20)
set(tessera_host_options -Wall -Wextra -Wno-unknown-pragmas
  $<$<BOOL:${TESSERA_WERROR}>:-Werror> $<$<BOOL:${TESSERA_NATIVE}>:-march=native>)
target_compile_options(tessera_options INTERFACE
  "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:${tessera_host_options}>"
  "$<$<COMPILE_LANGUAGE:CUDA>:${tessera_cuda_options}>")
include(TesseraSanitize)

# A shared library exports what is named tessera and nothing of the packages that were compiled into it.
function(tessera_export_names target)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL SHARED_LIBRARY)
    target_link_options(${target} PRIVATE LINKER:--version-script=${PROJECT_SOURCE_DIR}/share/cmake/exports.map)
    set_target_properties(${target} PROPERTIES DEFINE_SYMBOL "" LINK_DEPENDS ${PROJECT_SOURCE_DIR}/share/cmake/exports.map
      VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  endif()
endfunction()

function(tessera_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;HEADERS;PUBLIC;PRIVATE" ${ARGN})
  add_library(tessera_${name} ${arg_SOURCES})
  add_library(tessera::${name} ALIAS tessera_${name})
  target_include_directories(tessera_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>)
  if(IS_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/include)
    target_include_directories(tessera_${name} PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>)
  endif()
  target_link_libraries(tessera_${name} PUBLIC ${arg_PUBLIC}
    PRIVATE ${arg_PRIVATE} $<BUILD_INTERFACE:tessera_options>)
  target_compile_features(tessera_${name} PUBLIC cxx_std_20)
  set_target_properties(tessera_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON EXPORT_NAME ${name}
    TESSERA_HEADERS "${arg_HEADERS}")
  tessera_export_names(tessera_${name})
  if(TESSERA_CUDA)
    tessera_compile_for_device(tessera_${name})
  endif()
endfunction()

# tessera_add_test(<area> <topic> NP 1 2 ... [LIBRARIES targets] [TIMEOUT seconds] [LABELS ...])
# Builds tests/<area>/<topic>.test.cpp and registers <area>/<topic>:np<n> under mpiexec for each n.
function(tessera_add_test area topic)
  cmake_parse_arguments(arg "" "TIMEOUT" "NP;LIBRARIES;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  set(target test_${area}_${topic})
  add_executable(${target} ${topic}.test.cpp)
  target_link_libraries(${target} PRIVATE tessera_test_support ${arg_LIBRARIES} tessera_options)
  if(TESSERA_CUDA)
    tessera_compile_for_device(${target})
  else()
    target_precompile_headers(${target} REUSE_FROM tessera_test_support)
  endif()
  foreach(np IN LISTS arg_NP)
    tessera_register_test(${area}/${topic}:np${np} ${np} ${arg_TIMEOUT} "${area};np${np};${arg_LABELS}"
      $<TARGET_FILE:${target}>)
  endforeach()
endfunction()

# tessera_add_nccl_twin(<area> <topic> NP 1 2 ... [TIMEOUT seconds]): the same test once more, <area>/<topic>_nccl:np<n>,
# on NCCL's double, where that is built.
function(tessera_add_nccl_twin area topic)
  cmake_parse_arguments(arg "" "TIMEOUT" "NP" ${ARGN})
  if(NOT TARGET tessera_nccl_double)
    return()
  endif()
  set(target test_${area}_${topic})
  add_executable(${target}_nccl $<TARGET_OBJECTS:${target}>)
  target_link_libraries(${target}_nccl PRIVATE $<TARGET_PROPERTY:${target},LINK_LIBRARIES> tessera_nccl_double)
  foreach(np IN LISTS arg_NP)
    set(name ${area}/${topic}_nccl:np${np})
    tessera_register_test(${name} ${np} ${arg_TIMEOUT} "${area};np${np};nccl" $<TARGET_FILE:${target}_nccl>)
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT TESSERA_COLLECTIVES=nccl)
  endforeach()
endfunction()

# tessera_check_device_memory(<area> <topic> NP 1 2 ... [LIBRARIES targets] [TIMEOUT seconds] [ENVIRONMENT A=b ...])
# Like tessera_add_test, under <area>/<topic>_on_device:np<n>, in a run that checks device memory; without
# LIBRARIES it is a test that exists, once more.
function(tessera_check_device_memory area topic)
  cmake_parse_arguments(arg "" "TIMEOUT" "NP;LIBRARIES;ENVIRONMENT" ${ARGN})
  set(target test_${area}_${topic})
  if(arg_LIBRARIES)
    tessera_add_test(${area} ${topic} LIBRARIES ${arg_LIBRARIES})
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  foreach(np IN LISTS arg_NP)
    set(name ${area}/${topic}_on_device:np${np})
    tessera_register_test(${name} ${np} ${arg_TIMEOUT} "${area};np${np};device_memory" $<TARGET_FILE:${target}>)
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT TESSERA_DEVICE_MEMORY_CHECK=1 ${arg_ENVIRONMENT})
  endforeach()
endfunction()

# What every test runs under, those of the program included. Threads that wait sleep: there are more than cores.
set(TESSERA_TEST_THREADS 1 CACHE STRING "OpenMP threads of each rank in the tests")
file(STRINGS ${PROJECT_SOURCE_DIR}/share/setup/mpi_environment tessera_test_environment REGEX "^[A-Z]")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/share/setup/mpi_environment)
list(APPEND tessera_test_environment OMP_NUM_THREADS=${TESSERA_TEST_THREADS} OMP_WAIT_POLICY=passive
  OMP_PROC_BIND=false ${TESSERA_TEST_ENVIRONMENT})

# tessera_register_test(<name> <np> <timeout> <labels> command...): one ctest entry under mpiexec.
function(tessera_register_test name np timeout labels)
  add_test(NAME ${name} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${np} ${MPIEXEC_PREFLAGS} ${ARGN})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout} PROCESSORS ${np} LABELS "${labels}"
    ENVIRONMENT "${tessera_test_environment};TESSERA_CHECKED=1")
endfunction()
