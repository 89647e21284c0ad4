#%Module1.0
# SPDX-License-Identifier: Apache-2.0
# For `module load tessera`, with Environment Modules or Lmod: `module use PREFIX/share/modulefiles`. Finds the prefix
# from its own place, so the installation may be moved.
set prefix [file normalize $ModulesCurrentModulefile]
foreach level {tessera modulefiles share prefix} {
  set prefix [file dirname $prefix]
}

module-whatis "Tessera: expert parallelism and ZeRO-3 together, on MPI"
proc ModulesHelp {} {
  puts stderr "The program tessera, and its libraries: find_package(tessera CONFIG), or pkg-config tessera, tessera-c,"
  puts stderr "tessera-fortran. MPI, HDF5 and Kokkos are those that Tessera was built with; load their modules, too."
}

conflict tessera
setenv tessera_ROOT $prefix
prepend-path PATH $prefix/bin
prepend-path CMAKE_PREFIX_PATH $prefix
foreach folder [glob -nocomplain -type d $prefix/lib*] {
  prepend-path LD_LIBRARY_PATH $folder
  prepend-path PKG_CONFIG_PATH $folder/pkgconfig
}
