#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How far predictions are from measurements; for a quiet machine, no test. Prints tables, keeps everything in
# build/measure. Usage: tests/study/measure.sh plan|links [TESSERA]
#   plan   plan's step time beside runs of shapes that no calibration has seen: five times calibrate, then run
#   links  the event simulation beside runs between two network namespaces whose link has latency and rate (root)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source share/setup/common.sh
export_mpi_environment
export OMP_NUM_THREADS=1
what=${1:?plan or links}
tessera=$(realpath "${2:-$build/apps/tessera}")
here=$PWD/tests/study
work=$PWD/build/measure/$what
rm -rf "$work" && mkdir -p "$work"

# A gpt-oss: NAME HIDDEN INNER EXPERTS TOP LAYERS VOCABULARY HEADS KV_HEADS
shape() {
  printf '{"model_type": "gpt_oss", "hidden_size": %s, "intermediate_size": %s, "num_local_experts": %s,
 "num_experts_per_tok": %s, "num_hidden_layers": %s, "vocab_size": %s, "num_attention_heads": %s,
 "num_key_value_heads": %s, "head_dim": 64, "pad_token_id": null}\n' "${@:2}" >"$work/$1.json"
}

# summary COLUMN DIRECTORY...: of each run the median and the range over the directories, then the mean of the medians'
# distances. COLUMN of the report's first table: 10 is predicted against measured, 11 the simulated time.
summary() {
  local column=$1 directory
  shift
  for directory in "$@"; do
    "$tessera" study report "$directory" --output "$directory/report" >/dev/null
    awk -F'|' -v column="$column" -v name="$(basename "$directory")" '
      /^\| (weak|strong)/ { split($6, step, /[ []+/)
        off = column == 10 ? $10 + 0 : 100 * ($11 / step[2] - 1)
        sub(/@.*/, "", name); printf "%s:%s\t%.2f\n", name, $3, off }' "$directory/report/report.md"
  done | sort | awk -F'\t' '
    function flush(  i, j, t, m) {
      if (n == 0) return
      for (i = 2; i <= n; ++i) for (j = i; j > 1 && v[j] < v[j-1]; --j) { t = v[j]; v[j] = v[j-1]; v[j-1] = t }
      m = n % 2 ? v[(n+1)/2] : (v[n/2] + v[n/2+1]) / 2
      printf "%-40s %8.1f %%   %6.1f to %.1f\n", last, m, v[1], v[n]
      sum += m < 0 ? -m : m; ++runs
    }
    $1 != last { flush(); n = 0; last = $1 }
    { v[++n] = $2 }
    END { flush(); printf "mean distance of the medians: %.1f %% over %d runs\n", sum / runs, runs }'
}

measure_plan() {
  shape wide 1024 512 8 2 3 8192 16 4
  shape many 512 512 32 4 4 4096 8 2
  shape deep 768 1024 4 1 6 16384 12 4
  local pair model directories=()
  for pair in 1 2 3 4 5; do
    note "pair $pair: calibrate"
    mpirun --bind-to core -n 2 "$tessera" calibrate "$work/machine-$pair.json" --expert 2 >"$work/calibrate-$pair.txt"
    for model in wide many deep; do
      note "pair $pair: $model"
      directories+=("$work/$model@$pair")
      mpirun --bind-to core -n 2 "$tessera" study run "$work/$model.json" --ranks 1,2 --expert 1,2 --batch 1 \
        --sequence-length 1024 --steps 2 --repeat 3 --machine "$work/machine-$pair.json" --output "$work/$model@$pair"
    done
  done
  echo "plan against measured, median and range of five pairs (ranks = expert x replica):"
  summary 10 "${directories[@]}"
}

# on_nodes COMMAND...: two ranks, one in each namespace, over TCP through the wire alone.
on_nodes() {
  nsenter --net=/run/netns/tessera0 unshare -m -u bash -c 'hostname tessera0; mount -t tmpfs tmpfs /dev/shm; exec "$@"' - \
    mpirun --mca plm_rsh_agent "$work/agent" --mca btl tcp,self --mca btl_tcp_if_include wire0 --mca oob_tcp_if_include wire0 \
    --mca plm_rsh_no_tree_spawn 1 --bind-to none --host tessera0:1,tessera1:1 -n 2 \
    -x OMP_NUM_THREADS -x TMPDIR "$@"
}

clean_up() {
  [[ -z ${wire_pid-} ]] || kill "$wire_pid" 2>/dev/null || true
  ip netns del tessera0 2>/dev/null || true
  ip netns del tessera1 2>/dev/null || true
  sed -i '/ tessera[01]$/d' /etc/hosts 2>/dev/null || cp "$work/hosts" /etc/hosts
}

measure_links() {
  ((EUID == 0)) || die "network namespaces need root"
  export TMPDIR=$work
  cp /etc/hosts "$work/hosts"
  g++ -std=c++20 -O2 -o "$work/wire" "$here/wire.cpp"
  # mpirun's way to the other node: AGENT HOST COMMAND...
  printf '#!/bin/bash\nhost=$1; shift\nexec nsenter --net=/run/netns/$host unshare -m -u bash -c "hostname $host; mount -t tmpfs tmpfs /dev/shm; $*"\n' \
    >"$work/agent"
  chmod +x "$work/agent"
  shape small 256 256 8 2 3 2048 4 2
  shape large 512 256 16 2 4 4096 8 2
  trap clean_up EXIT
  local latency rate link model directories=()
  for link in 200:1000 1000:1000 500:300; do
    latency=${link%:*} rate=${link#*:}
    clean_up
    printf '10.77.0.1 tessera0\n10.77.0.2 tessera1\n' >>/etc/hosts
    ip netns add tessera0 && ip netns add tessera1
    ip -n tessera0 link set lo up && ip -n tessera1 link set lo up
    "$work/wire" tessera0 10.77.0.1 tessera1 10.77.0.2 "$latency" "$rate" &
    wire_pid=$!
    sleep 1
    note "link of $latency us and $rate Mbit/s: calibrate"
    on_nodes "$tessera" calibrate "$work/machine-$link.json" --expert 1 --dtype bf16 >"$work/calibrate-$link.txt"
    for model in small large; do
      note "link of $latency us and $rate Mbit/s: $model"
      directories+=("$work/$model-$link")
      on_nodes "$tessera" study run "$work/$model.json" --ranks 2 --expert 1,2 --batch 1 --sequence-length 512 \
        --steps 2 --repeat 3 --machine "$work/machine-$link.json" --output "$work/$model-$link"
    done
  done
  echo "event simulation against runs over shaped links (latency us:rate Mbit/s:ranks = expert x replica):"
  summary 11 "${directories[@]}"
}

case $what in
  plan) measure_plan ;;
  links) measure_links ;;
  *) die "plan or links" ;;
esac
