#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The program on NCCL's double: what it says about who carries arrays, and that a rank that dies or stops in the
# middle of a step ends the job within the deadline, with its name.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
source "$(dirname "${BASH_SOURCE[0]}")/background.sh"

run 2 doctor
expect_code 0
expect_output "travel by NCCL 2."
NCCL_DOUBLE_VERSION=21703 run 2 doctor
expect_code 3
expect_output "NCCL 2.17.3 runs, and Tessera was built with NCCL 2.18.0"
# Another on one rank.
command="tessera doctor with two versions of NCCL"
"$mpiexec" -n 2 sh -c '[ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 1 ] || export NCCL_DOUBLE_VERSION=22809; exec "$0" doctor' \
  "$tessera" >"$directory/stdout" 2>"$directory/stderr" </dev/null
code=$?
output=$(<"$directory/stdout")
expect_code 3
expect_output "by NCCL 2.18.0 (a double of it) on some ranks and by NCCL 2.28.9"
TESSERA_COLLECTIVES=pigeon run 2 doctor
expect_code 2
expect_once "TESSERA_COLLECTIVES is 'pigeon'"
TESSERA_COLLECTIVES=staged run 2 doctor
expect_code 0
expect_output "travel by MPI through pinned host memory"

# A few steps, and the grid's line says what carries arrays.
run 4 train "$golden" --data "$golden/tokens.npy" --batch 4 --expert 2 --steps 2 --output "$directory/run"
expect_code 0
expect_error "arrays travel by NCCL 2."

# A rank is killed.
a_rank_is_killed

# A rank stops.
a_rank_stops
# It is missed before a call, or in the middle of one that the others have begun.
[[ $errors =~ 'did not come within 3.0 s'|'not complete after 3.0 s' ]] ||
  complain "no message says that a rank is missed"
finish
