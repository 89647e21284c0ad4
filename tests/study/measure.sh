#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# plan's step time beside runs of shapes that no calibration has seen: so many times calibrate, then run. For a quiet
# machine, no test. Prints a table, keeps everything in build/measure. Usage: tests/study/measure.sh [PAIRS [TESSERA]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source share/setup/common.sh
source tests/study/shapes.sh
export_mpi_environment
export OMP_NUM_THREADS=1
pairs=${1:-5}
tessera=$(realpath "${2:-$build/apps/tessera}")
work=$PWD/build/measure
rm -rf "$work" && mkdir -p "$work"
write_shapes "$work"

for ((pair = 1; pair <= pairs; ++pair)); do
  note "pair $pair: calibrate"
  mpirun --bind-to core -n 2 "$tessera" calibrate "$work/machine-$pair.json" --expert 2 >"$work/calibrate-$pair.txt"
  for model in wide many deep; do
    note "pair $pair: $model"
    results=$work/$model@$pair
    mpirun --bind-to core -n 2 "$tessera" study run "$work/$model.json" --ranks 1,2 --expert 1,2 --batch 1 \
      --sequence-length 1024 --steps 2 --repeat 3 --machine "$work/machine-$pair.json" --output "$results" >"$results.txt"
    "$tessera" study report "$results" --output "$results/report" >/dev/null
    # grid, and how far the prediction is from the run
    awk -F'|' -v model=$model '/^\| (weak|strong)/ { print model ":" $3 "\t" $10 + 0 }' "$results/report/report.md" >>"$work/distances"
  done
done
echo "plan against measured, median and range of $pairs pairs (ranks = expert x replica):"
cut -f1 "$work/distances" | sort -u | while IFS= read -r run; do
  printf '%-40s' "$run"
  awk -F'\t' -v run="$run" '$1 == run { print $2 }' "$work/distances" | median_and_range
done | tee "$work/table"
mean_distance <"$work/table"
