# Every package that Tessera stands on, as imported targets: for the build, and with tessera_is_installed for those who
# find the installed package, which is then not found, with the reason, where one of them is missing.
macro(tessera_find)
  if(tessera_is_installed)
    find_dependency(${ARGV})
  else()
    find_package(${ARGV} REQUIRED)
  endif()
endmacro()
macro(tessera_refuse)
  string(CONCAT tessera_reason ${ARGV})
  if(tessera_is_installed)
    set(tessera_FOUND FALSE)
    set(tessera_NOT_FOUND_MESSAGE "${tessera_reason}")
    return()
  endif()
  message(FATAL_ERROR "${tessera_reason}")
endmacro()

tessera_find(Threads)
# Without the C++ bindings that Open MPI 4 still ships: they cost compile time and are gone in version 5.
set(MPI_CXX_SKIP_MPICXX ON)
tessera_find(MPI 3.1 COMPONENTS C CXX)

# FindHDF5 makes hdf5::hdf5 only of a library of that name (Debian's HDF5 2 is hdf5_openmpi) and leaves alone
# the target that it finds.
if(NOT TARGET hdf5::hdf5)
  add_library(hdf5::hdf5 INTERFACE IMPORTED)
endif()
set(HDF5_PREFER_PARALLEL ON)
tessera_find(HDF5 1.10 COMPONENTS C)
string(REPLACE "-D" "" hdf5_definitions "${HDF5_C_DEFINITIONS}")
set_target_properties(hdf5::hdf5 PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${HDF5_C_INCLUDE_DIRS}" INTERFACE_COMPILE_DEFINITIONS "${hdf5_definitions}"
  INTERFACE_LINK_LIBRARIES "${HDF5_C_LIBRARIES}")
if(NOT HDF5_IS_PARALLEL)
  tessera_refuse("HDF5 ${HDF5_VERSION} was built without MPI (Tessera reads and writes in parallel); "
                 "install libhdf5-openmpi-dev or set HDF5_ROOT to a parallel build")
endif()

# separable_compilation: Kokkos leaves it to us what nvcc compiles.
tessera_find(Kokkos CONFIG COMPONENTS separable_compilation)
if(Kokkos_VERSION VERSION_LESS 3.4)
  tessera_refuse("Kokkos ${Kokkos_VERSION} is too old (Tessera is written for 3.4 to 5); set Kokkos_ROOT to another")
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
  if(NOT tessera_is_installed)
    include(TesseraCuda)
  endif()
  tessera_find(CUDAToolkit 12.5)  # grouped products of cuBLAS
endif()
if(TESSERA_NCCL AND NOT TARGET NCCL::nccl)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
  find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} PATH_SUFFIXES lib)
  if(NOT NCCL_INCLUDE_DIR OR NOT NCCL_LIBRARY)
    tessera_refuse("TESSERA_NCCL wants NCCL, which was not found (nccl.h: ${NCCL_INCLUDE_DIR}, libnccl: "
                   "${NCCL_LIBRARY}); add its folder to CMAKE_PREFIX_PATH, or build with -DTESSERA_NCCL=OFF")
  endif()
  add_library(NCCL::nccl UNKNOWN IMPORTED)
  set_target_properties(NCCL::nccl PROPERTIES IMPORTED_LOCATION ${NCCL_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${NCCL_INCLUDE_DIR} INTERFACE_LINK_LIBRARIES CUDA::cudart)
endif()

# Debian's oneDNN looks for the OpenCL development files (ocl-icd-opencl-dev) though its package does not
# bring them, and tells every step of the search.
set(CMAKE_REQUIRED_QUIET ON)
tessera_find(dnnl CONFIG)
unset(CMAKE_REQUIRED_QUIET)
tessera_find(fmt CONFIG)
tessera_find(spdlog CONFIG)
tessera_find(tomlplusplus CONFIG)
tessera_find(PkgConfig)
pkg_check_modules(xxhash IMPORTED_TARGET libxxhash>=0.8)
if(NOT TARGET PkgConfig::xxhash)
  tessera_refuse("libxxhash 0.8 or newer was not found by pkg-config; install libxxhash-dev")
endif()
if(tessera_is_installed)
  return()
endif()

# What is compiled in or belongs to the programs.
find_package(nlohmann_json REQUIRED CONFIG)
if(TESSERA_APPS OR TESSERA_TESTS)
  find_package(CLI11 REQUIRED CONFIG)
endif()
if(TESSERA_TESTS)
  find_package(Catch2 REQUIRED CONFIG)
  if(Catch2_VERSION VERSION_LESS 2.13)
    message(FATAL_ERROR "Catch2 ${Catch2_VERSION} is too old (the tests need 2.13 or 3); set Catch2_ROOT to another")
  endif()
endif()
