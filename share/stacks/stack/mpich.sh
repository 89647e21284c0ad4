# SPDX-License-Identifier: Apache-2.0
# Debian 12 with MPICH beside Open MPI, where nothing but these five variables keeps the two apart: without the
# last two CMake links both MPI libraries and says nothing.
suite=bookworm
packages=("${tool_packages[@]}" "${open_mpi_packages[@]}" "${library_packages[@]}" libtrilinos-kokkos-dev
  libmpich-dev mpich libhdf5-mpich-dev)
options=(-DMPI_C_COMPILER=mpicc.mpich -DMPI_CXX_COMPILER=mpicxx.mpich -DMPI_Fortran_COMPILER=mpifort.mpich
  -DMPIEXEC_EXECUTABLE=/usr/bin/mpiexec.mpich -DHDF5_C_COMPILER_EXECUTABLE=/usr/bin/h5pcc.mpich)
mpi=libmpich-dev
