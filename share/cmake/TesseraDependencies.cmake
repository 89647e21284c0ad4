# Every package that Tessera stands on, as imported targets.
find_package(Threads REQUIRED)
# Without the C++ bindings that Open MPI 4 still ships: they cost compile time and are gone in version 5.
set(MPI_CXX_SKIP_MPICXX ON)
find_package(MPI 3.1 REQUIRED COMPONENTS C CXX)

# FindHDF5 makes hdf5::hdf5 only of a library of that name (Debian's HDF5 2 is hdf5_openmpi) and leaves alone
# the target that it finds.
add_library(hdf5::hdf5 INTERFACE IMPORTED)
set(HDF5_PREFER_PARALLEL ON)
find_package(HDF5 1.10 REQUIRED COMPONENTS C)
string(REPLACE "-D" "" hdf5_definitions "${HDF5_C_DEFINITIONS}")
set_target_properties(hdf5::hdf5 PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${HDF5_C_INCLUDE_DIRS}" INTERFACE_COMPILE_DEFINITIONS "${hdf5_definitions}"
  INTERFACE_LINK_LIBRARIES "${HDF5_C_LIBRARIES}")
if(NOT HDF5_IS_PARALLEL)
  message(FATAL_ERROR "HDF5 ${HDF5_VERSION} was built without MPI (Tessera reads and writes in parallel); "
                      "install libhdf5-openmpi-dev or set HDF5_ROOT to a parallel build")
endif()

# separable_compilation: Kokkos leaves it to us what nvcc compiles.
find_package(Kokkos REQUIRED CONFIG COMPONENTS separable_compilation)
if(Kokkos_VERSION VERSION_LESS 3.4)
  message(FATAL_ERROR "Kokkos ${Kokkos_VERSION} is too old (Tessera is written for 3.4 to 5); set Kokkos_ROOT to another")
endif()
# Debian's Kokkos 3.4.1 names an include directory that does not exist.
get_target_property(kokkos_include Kokkos::kokkos INTERFACE_INCLUDE_DIRECTORIES)
foreach(directory IN LISTS kokkos_include)
  if(NOT directory MATCHES "^\\$<" AND NOT EXISTS "${directory}")
    set_target_properties(Kokkos::kokkos PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${Kokkos_INCLUDE_DIRS}"
      INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${Kokkos_INCLUDE_DIRS}")
  endif()
endforeach()
# Kokkos 5 gives its definitions to C++ alone, by a question that CMake answers only where it compiles; the lint
# and fuzz tests have commands of their own. What sees Kokkos is C++ here.
foreach(library kokkos kokkoscore kokkoscontainers kokkosalgorithms kokkossimd)
  if(TARGET Kokkos::${library})
    get_target_property(definitions Kokkos::${library} INTERFACE_COMPILE_DEFINITIONS)
    if(definitions)
      string(REGEX REPLACE "\\$<\\$<COMPILE_LANGUAGE:CXX>:([A-Z_]+)>" "\\1" definitions "${definitions}")
      set_target_properties(Kokkos::${library} PROPERTIES INTERFACE_COMPILE_DEFINITIONS "${definitions}")
    endif()
  endif()
endforeach()

if(TESSERA_CUDA)
  include(TesseraCuda)
endif()

# Debian's oneDNN looks for the OpenCL development files (ocl-icd-opencl-dev) though its package does not
# bring them, and tells every step of the search.
set(CMAKE_REQUIRED_QUIET ON)
find_package(dnnl REQUIRED CONFIG)
unset(CMAKE_REQUIRED_QUIET)
find_package(fmt REQUIRED CONFIG)
find_package(spdlog REQUIRED CONFIG)
find_package(nlohmann_json REQUIRED CONFIG)
find_package(tomlplusplus REQUIRED CONFIG)
find_package(PkgConfig REQUIRED)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash>=0.8)
if(TESSERA_APPS OR TESSERA_TESTS)
  find_package(CLI11 REQUIRED CONFIG)
endif()
if(TESSERA_TESTS)
  find_package(Catch2 REQUIRED CONFIG)
  if(Catch2_VERSION VERSION_LESS 2.13)
    message(FATAL_ERROR "Catch2 ${Catch2_VERSION} is too old (the tests need 2.13 or 3); set Catch2_ROOT to another")
  endif()
endif()
