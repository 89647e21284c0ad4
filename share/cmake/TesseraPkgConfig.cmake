# pkg-config files for builds without CMake: tessera.pc for C++, tessera-c.pc and tessera-fortran.pc; compile and link with
# the wrappers of the MPI that Tessera was built with (mpicxx, mpicc, mpifort).
set(libraries "")
foreach(part study trainer model checkpoint zero3 moe kernel comm base)
  string(APPEND libraries " -ltessera_${part}")
endforeach()
# Appends the file of a package's library to `needed`, or those that its interface target stands for.
function(tessera_append_files target)
  if(NOT TARGET ${target})
    return()
  endif()
  get_target_property(type ${target} TYPE)
  if(NOT type STREQUAL INTERFACE_LIBRARY)
    set(needed "${needed} $<TARGET_FILE:${target}>" PARENT_SCOPE)
    return()
  endif()
  get_target_property(libraries ${target} INTERFACE_LINK_LIBRARIES)
  foreach(library IN LISTS libraries)
    tessera_append_files(${library})
  endforeach()
  set(needed "${needed}" PARENT_SCOPE)
endfunction()
set(needed "")
foreach(target Kokkos::kokkos DNNL::dnnl spdlog::spdlog fmt::fmt tomlplusplus::tomlplusplus NCCL::nccl CUDA::cublas CUDA::cudart)
  tessera_append_files(${target})
endforeach()
list(JOIN HDF5_C_LIBRARIES " " hdf5_libraries)
list(JOIN xxhash_LINK_LIBRARIES " " xxhash_libraries)
list(JOIN Kokkos_INCLUDE_DIRS " -I" kokkos_flags)
string(APPEND needed " ${hdf5_libraries} ${xxhash_libraries} -lstdc++ -lm -lpthread -ldl")
if(Kokkos_ENABLE_OPENMP)
  string(APPEND kokkos_flags " -fopenmp")
  string(APPEND needed " -fopenmp")
endif()

# tessera_pkg_config(<name> <description> <requires> <flags> <libraries>)
function(tessera_pkg_config name description requires flags libraries)
  file(RELATIVE_PATH to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/package/${name}.pc CONTENT "prefix=\${pcfiledir}/${to_prefix}
libdir=\${prefix}/${CMAKE_INSTALL_LIBDIR}
includedir=\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}

Name: ${name}
Description: ${description}
Version: ${PROJECT_VERSION}
Requires: ${requires}
Cflags: -I\${includedir}${flags}
Libs: -L\${libdir}${libraries}
")
  install(FILES ${PROJECT_BINARY_DIR}/package/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

tessera_pkg_config(tessera "${PROJECT_DESCRIPTION}" "" " -std=c++20 -I${kokkos_flags}" "${libraries}${needed}")
if(BUILD_SHARED_LIBS)
  tessera_pkg_config(tessera-c "Tessera for C" "" "" " -ltessera_c")
else()
  tessera_pkg_config(tessera-c "Tessera for C" "" "" " -ltessera_c${libraries}${needed}")
endif()
if(TARGET tessera_fortran)
  tessera_pkg_config(tessera-fortran "Tessera for Fortran" tessera-c "/tessera/fortran" " -ltessera_fortran")
endif()
