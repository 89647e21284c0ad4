# TESSERA_CUDA: every source that reaches Kokkos' headers is compiled by nvcc, for the architectures of Kokkos.
# The others stay with the C++ compiler; so does linking.
if(NOT Kokkos_ENABLE_CUDA)
  message(FATAL_ERROR "TESSERA_CUDA wants a Kokkos with its Cuda backend, and the one found has ${Kokkos_DEVICES} "
                      "(${Kokkos_DIR}); set Kokkos_ROOT to a build with Kokkos_ENABLE_CUDA")
endif()
if(Kokkos_VERSION VERSION_LESS 4.7)
  message(FATAL_ERROR "Kokkos ${Kokkos_VERSION} is too old for TESSERA_CUDA, which wants 4.7 or newer")
endif()
if(Kokkos_ENABLE_CUDA_RELOCATABLE_DEVICE_CODE)
  message(FATAL_ERROR "Kokkos was built with relocatable device code, whose device link Tessera does not do; "
                      "build it with Kokkos_ENABLE_CUDA_RELOCATABLE_DEVICE_CODE=OFF, the default")
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${Kokkos_CUDA_ARCHITECTURES})
endif()
enable_language(CUDA)

# Kokkos hands out its flags as those of C++, for nvcc_wrapper in the place of the C++ compiler.
if(TARGET Kokkos::kokkoscore)
  set_target_properties(Kokkos::kokkoscore PROPERTIES INTERFACE_COMPILE_OPTIONS "")
endif()
# CMake 3.25 does not know that nvcc has C++20. fmt 9 leaves out its constexpr under nvcc, half of it only. 1675: nvcc
# does not know the pragmas that it hands to the host's compiler.
set(tessera_cuda_options -std=c++20 --extended-lambda -Wext-lambda-captures-this -DFMT_USE_CONSTEXPR=1 -diag-suppress=1675
  $<$<BOOL:${TESSERA_WERROR}>:SHELL:-Werror all-warnings> $<$<BOOL:${TESSERA_NATIVE}>:-Xcompiler=-march=native>)

# Sets <result> to whether <file>, or a header of ours that it includes, includes Kokkos.
function(tessera_reaches_kokkos file result)
  get_property(known GLOBAL PROPERTY tessera_reaches_kokkos:${file} SET)
  if(known)
    get_property(reaches GLOBAL PROPERTY tessera_reaches_kokkos:${file})
    set(${result} ${reaches} PARENT_SCOPE)
    return()
  endif()
  set_property(GLOBAL PROPERTY tessera_reaches_kokkos:${file} FALSE)  # of a circle, while it is walked
  set_property(DIRECTORY ${PROJECT_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  get_filename_component(folder ${file} DIRECTORY)
  file(STRINGS ${file} includes REGEX "^#include")
  set(reaches FALSE)
  foreach(line IN LISTS includes)
    string(REGEX REPLACE "^#include *[<\"]([^>\"]*)[>\"].*" "\\1" header "${line}")
    if(header MATCHES "^Kokkos_")
      set(reaches TRUE)
      break()
    endif()
    string(REGEX REPLACE "^tessera/([a-z0-9_]+)/.*" "modules/\\1/include" module "${header}")
    foreach(place ${folder} ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/${module} ${PROJECT_SOURCE_DIR}/tests)
      if(EXISTS ${place}/${header} AND NOT IS_DIRECTORY ${place}/${header})
        tessera_reaches_kokkos(${place}/${header} reaches)
        break()
      endif()
    endforeach()
    if(reaches)
      break()
    endif()
  endforeach()
  set_property(GLOBAL PROPERTY tessera_reaches_kokkos:${file} ${reaches})
  set(${result} ${reaches} PARENT_SCOPE)
endfunction()

# Makes CUDA the language of those sources of <target>, in whose folder it is called, that reach Kokkos.
function(tessera_compile_for_device target)
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    get_filename_component(file ${source} ABSOLUTE)
    if(file MATCHES "\\.cpp$" AND EXISTS ${file})
      tessera_reaches_kokkos(${file} reaches)
      if(reaches)
        set_source_files_properties(${source} PROPERTIES LANGUAGE CUDA)
      endif()
    endif()
  endforeach()
endfunction()
