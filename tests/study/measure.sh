#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# plan's step time beside runs of shapes that no calibration has seen: so many times calibrate, then run. For a quiet
# machine, no test. Prints a table, keeps everything in build/measure. Usage: tests/study/measure.sh [PAIRS [TESSERA]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source share/setup/common.sh
export_mpi_environment
export OMP_NUM_THREADS=1
pairs=${1:-5}
tessera=$(realpath "${2:-$build/apps/tessera}")
work=$PWD/build/measure
rm -rf "$work" && mkdir -p "$work"

# A gpt-oss: NAME HIDDEN INNER EXPERTS TOP LAYERS VOCABULARY HEADS KV_HEADS
shape() {
  printf '{"model_type": "gpt_oss", "hidden_size": %s, "intermediate_size": %s, "num_local_experts": %s,
 "num_experts_per_tok": %s, "num_hidden_layers": %s, "vocab_size": %s, "num_attention_heads": %s,
 "num_key_value_heads": %s, "head_dim": 64, "pad_token_id": null}\n' "${@:2}" >"$work/$1.json"
}

# summary DIRECTORY...: of each run the median and the range over the directories, then the mean of the medians'
# distances.
summary() {
  local directory
  for directory in "$@"; do
    "$tessera" study report "$directory" --output "$directory/report" >/dev/null
    awk -F'|' -v name="$(basename "$directory")" '
      /^\| (weak|strong)/ { sub(/@.*/, "", name); printf "%s:%s\t%.2f\n", name, $3, $10 + 0 }' "$directory/report/report.md"
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
  for ((pair = 1; pair <= pairs; ++pair)); do
    note "pair $pair: calibrate"
    mpirun --bind-to core -n 2 "$tessera" calibrate "$work/machine-$pair.json" --expert 2 >"$work/calibrate-$pair.txt"
    for model in wide many deep; do
      note "pair $pair: $model"
      directories+=("$work/$model@$pair")
      mpirun --bind-to core -n 2 "$tessera" study run "$work/$model.json" --ranks 1,2 --expert 1,2 --batch 1 \
        --sequence-length 1024 --steps 2 --repeat 3 --machine "$work/machine-$pair.json" --output "$work/$model@$pair"
    done
  done
  echo "plan against measured, median and range of $pairs pairs (ranks = expert x replica):"
  summary "${directories[@]}"
}

measure_plan
