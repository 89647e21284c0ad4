# SPDX-License-Identifier: Apache-2.0
# Debian 13: g++ 14, Open MPI 5, HDF5 1.14, oneDNN 3, Catch2 3, Kokkos 3.4 with its Serial backend.
suite=trixie
packages=("${tool_packages[@]}" "${open_mpi_packages[@]}" "${library_packages[@]}" libtrilinos-kokkos-dev)
mpi=libopenmpi-dev
