#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Draws step_streams.svg beside it: one training step on four ranks, as given to the streams of rank 0.
# Usage: share/doc/step_streams.sh [BUILD_DIRECTORY]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source share/setup/common.sh
program=${1:-$build}/tests/trainer/test_trainer_nccl_streams
[[ -x $program ]] || die "$program is not built; cmake --build ${1:-$build} --target test_trainer_nccl_streams"
command -v gnuplot >/dev/null || die "gnuplot is not installed"
export_mpi_environment
data=$(mktemp)
trap 'rm -f "$data"' EXIT
TESSERA_STREAMS_FILE=$data mpiexec -n 4 "$program" >&2
gnuplot -e "data='$data'" share/doc/step_streams.gnuplot >share/doc/step_streams.svg
