#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The doctor names what it stands on and finds what is wrong.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"

run 2 doctor --expert 2
expect_code 0
for subject in MPI HDF5 Kokkos oneDNN devices ranks memory grid; do expect_output "$subject"; done
expect_output "parallel"
expect_output "2 on 1 node(s)"
expect_once "Kokkos    "
expect_output "none: this Tessera was built without CUDA"
expect_output "pointers to device memory"

# More ranks than cores, and more threads than cores.
num_cores=$(env -u OMP_NUM_THREADS nproc) # nproc itself obeys OMP_NUM_THREADS
num_ranks=$((num_cores + 1))
if ((num_ranks <= 8)); then
  run "$num_ranks" doctor
  expect_code 0
  expect_output "ranks share $num_cores core(s)"
fi
too_many=$(($(nproc --all) + 97)) # Kokkos' OpenMP backend does not survive a thousand
OMP_NUM_THREADS=$too_many run 1 doctor
expect_code 0
expect_output "$too_many threads"
if [[ $output == *"MPI-IO by romio"* ]]; then # Open MPI 4 and 5 have the choice
  OMPI_MCA_io=ompio run 1 doctor
  expect_code 0
  expect_output "MPI-IO is not by ROMIO"
fi
TESSERA_COLLECTIVES=staged run 2 doctor
expect_code 2
expect_once "asks for what this build has not"

# A launcher of another MPI: the environment says four processes, MPI knows of one.
export SLURM_NTASKS=4
run 0 doctor
expect_code 3
expect_output "FAILURE"
expect_output "started 4 processes"
finish
