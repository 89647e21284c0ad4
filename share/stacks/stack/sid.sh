# SPDX-License-Identifier: Apache-2.0
# Debian unstable: g++ 16, Open MPI 6, HDF5 2, oneDNN 3, Catch2 3, Kokkos 5 with its OpenMP backend, of which each
# rank has three threads.
suite=sid
packages=("${tool_packages[@]}" "${open_mpi_packages[@]}" "${library_packages[@]}" libkokkos-dev)
options=(-DTESSERA_TEST_THREADS=3)
mpi=libopenmpi-dev

# Kokkos's CMake package names two static libraries that Debian's does not bring.
mend_kokkos() {
  local name
  for name in algorithms simd; do
    [[ -e /usr/lib/x86_64-linux-gnu/libkokkos$name.a ]] || ar cr "/usr/lib/x86_64-linux-gnu/libkokkos$name.a"
  done
}
mend() { mend_kokkos; }
