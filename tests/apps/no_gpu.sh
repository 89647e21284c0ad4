#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A program built for GPUs where there is none: doctor says so, and what needs no GPU works. That the others refuse to
# start is tested where the choice of a GPU is, comm/devices.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
golden=$source_dir/tests/golden/small

run 2 doctor --expert 2
expect_code 3
for subject in MPI HDF5 Kokkos oneDNN ranks memory; do expect_output "$subject"; done
expect_output "none: no NVIDIA driver answers"
expect_output "2 of 2 ranks find no GPU"
run 0 doctor
expect_code 3
expect_output "1 of 1 ranks find no GPU"

run 0 plan "$golden/config.json" --ranks 2 --batch 2 --sequence-length 8
expect_code 0
run 0 inspect "$golden"
expect_code 0
run 0 train "$golden" --steps
expect_code 2
expect_error "--steps"
finish
