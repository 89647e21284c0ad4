#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `study simulate` beside runs over links with latency and rate, between the two nodes of tests/cluster's Slurm: so many
# times calibrate, then run. As root, on a quiet machine; no test. Prints a table, keeps everything in
# build/measure_links. Usage: tests/study/measure_links.sh [PAIRS [TESSERA]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source share/setup/common.sh
source tests/study/shapes.sh
source tests/cluster/slurm.sh
pairs=${1:-3}
tessera=$(realpath "${2:-$build/apps/tessera}")
work=$PWD/build/measure_links
links=("200 1000" "1000 400") # latency [us], rate [Mbit/s]
shape_options=(--sequence-length 512 --batch 1 --routing balanced)
reason=$(cluster_missing)
[[ -z $reason ]] || die "no cluster here: $reason"
cmake --build "$build" --target wire >/dev/null
rm -rf "$work" && mkdir -p "$work" && cd "$work"
write_shapes .

wire=
trap 'kill $wire 2>/dev/null || true; cluster_down' EXIT
cluster_up
on_nodes() {
  at ctl env OMPI_MCA_btl_tcp_if_include=wire0 OMP_NUM_THREADS=1 \
    srun --mpi=pmix --nodes=2 --ntasks=2 --ntasks-per-node=1 "$tessera" "$@"
}
# The seconds in the first match of a pattern that ends in a number with its unit.
seconds_after() {
  grep -o -E "$1[0-9.]+ (us|ms|s|min)" "$2" | head -n 1 |
    awk '{ unit["us"] = 1e-6; unit["ms"] = 1e-3; unit["s"] = 1; unit["min"] = 60; print $(NF - 1) * unit[$NF] }'
}
# compare LINK PAIR MODEL EXPERT: appends how far the simulation is from the run.
compare() {
  local name=$3-expert_$4-$2 measured simulated
  on_nodes study run "$3.json" --ranks 2 --expert "$4" "${shape_options[@]}" --steps 2 --repeat 3 \
    --output "$name" >"$name.run"
  "$tessera" study simulate "$3.json" --ranks 2 --ranks-per-node 1 --expert "$4" "${shape_options[@]}" \
    --machine "machine-$2.json" >"$name.simulated"
  measured=$(seconds_after 'batch 2: ' "$name.run") simulated=$(seconds_after '^step ' "$name.simulated")
  note "$1, $3, --expert $4: measured $measured s, simulated $simulated s"
  awk -v run="$3, --expert $4, $1" -v m="$measured" -v s="$simulated" 'BEGIN { printf "%s\t%f\n", run, 100 * (s / m - 1) }' \
    >>distances
}

for link in "${links[@]}"; do
  read -r delay rate <<<"$link"
  "$build/tests/study/wire" "$cluster-n1" 10.78.0.1 "$cluster-n2" 10.78.0.2 "$delay" "$rate" &
  wire=$!
  for ((pair = 1; pair <= pairs; ++pair)); do
    id=$delay-$rate-$pair
    note "link of $delay us and $rate Mbit/s, pair $pair: calibrate"
    on_nodes calibrate "machine-$id.json" --expert 2 >"calibrate-$id.txt"
    for model in wide many; do
      for expert in 1 2; do compare "$delay us $rate Mbit/s" "$id" "$model" "$expert"; done
    done
  done
  kill "$wire"
  wait "$wire" || true
done
echo "simulated against measured over shaped links, median and range of $pairs pairs:"
cut -f1 distances | sort -u | while IFS= read -r run; do
  printf '%-44s' "$run"
  awk -F'\t' -v run="$run" '$1 == run { print $2 }' distances | median_and_range
done | tee table
mean_distance <table
