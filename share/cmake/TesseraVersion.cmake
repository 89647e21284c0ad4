# tessera_record_version(<target> <source>): writes the public header tessera/version.h, hands <source> the compiler and
# packages, and the git commit through version_commit.hpp, which is rewritten at each build when the commit has changed.
# Run as a script (cmake -D source_dir=... -D header=... -P), it writes that header.
if(CMAKE_SCRIPT_MODE_FILE)
  cmake_minimum_required(VERSION 3.25)
  set(commit unknown)
  if(EXISTS ${source_dir}/.git)
    execute_process(COMMAND git -C ${source_dir} describe --always --dirty --abbrev=12 --exclude=*
      OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
    if(status EQUAL 0)
      set(commit ${described})
    endif()
  endif()
  file(CONFIGURE OUTPUT ${header} CONTENT "#define TESSERA_COMMIT \"@commit@\"\n" @ONLY)
  return()
endif()

function(tessera_record_version target source)
  set(header ${CMAKE_CURRENT_BINARY_DIR}/generated/version_commit.hpp)
  add_custom_target(${target}_commit BYPRODUCTS ${header}
    COMMAND ${CMAKE_COMMAND} -D source_dir=${PROJECT_SOURCE_DIR} -D header=${header}
      -P ${CMAKE_CURRENT_FUNCTION_LIST_FILE}
    COMMENT "")
  add_dependencies(${target} ${target}_commit)
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/generated
    PUBLIC $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>)
  configure_file(${PROJECT_SOURCE_DIR}/share/cmake/version.h.in ${PROJECT_BINARY_DIR}/include/tessera/version.h @ONLY)
  set(packages "HDF5 ${HDF5_VERSION}, Kokkos ${Kokkos_VERSION}, oneDNN ${dnnl_VERSION}, MPI ${MPI_CXX_VERSION}")
  set(TESSERA_STACK "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}, ${packages}, Kokkos devices ${Kokkos_DEVICES}, Catch2 ${Catch2_VERSION}"
    CACHE INTERNAL "For the report of share/stacks")
  set_source_files_properties(${source} PROPERTIES COMPILE_DEFINITIONS
    "TESSERA_BUILT_TYPE=\"${CMAKE_BUILD_TYPE}\";TESSERA_BUILT_COMPILER=\"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\";TESSERA_BUILT_DEPENDENCIES=\"${packages}\"")
endfunction()
