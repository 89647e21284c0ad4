#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The numbers and pictures of scaling.md: plans and simulations from share/models and share/machines, no cluster needed.
# Writes scaling_*.svg beside it and prints the tables. Usage: share/doc/scaling.sh [TESSERA]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source share/setup/common.sh
tessera=${1:-$build/apps/tessera}
[[ -x $tessera ]] || die "$tessera is not built"
command -v gnuplot >/dev/null || die "gnuplot is not installed"
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
options=(--dtype bf16 --recompute layer)
length_h100=4096
length_epyc_9004=1024 # a core takes minutes for 4,096 tokens, and its memory is small
models=(gpt_oss_20b gpt_oss_120b deepseek_v3)
ranks_h100=8,16,32,64,128,256,512,1024,2048,4096,8192,12288
ranks_epyc_9004=128,256,512,1024,2048,4096,8192,12288

# plan MODEL MACHINE ARGUMENTS...
plan() {
  local length=length_$2
  "$tessera" plan "share/models/$1.json" --machine "share/machines/$2.json" --sequence-length "${!length}" "${options[@]}" "${@:3}"
}
heading() { printf '\n== %s\n' "$1"; }

for machine in h100 epyc_9004; do
  ranks=ranks_$machine
  for model in "${models[@]}"; do
    heading "$model on $machine, one sequence per rank, the best grid of each number of ranks"
    plan "$model" "$machine" --ranks "${!ranks}" | tee "$data/$machine.$model.table"
    # ranks, efficiency [%], TFLOP/s per rank
    awk '$1 ~ /^[0-9]+$/ && /%/ { for (i = 1; i <= NF; ++i) if ($i ~ /%$/) print $1, $i + 0, $(i + 1) }' \
      "$data/$machine.$model.table" >"$data/$machine.$model.dat"
  done
  gnuplot -e "machine='$machine'; data='$data'" share/doc/scaling_efficiency.gnuplot >"share/doc/scaling_$machine.svg"
done

heading "Seconds per step of a gpt-oss-120b on 1,024 H100 by expert axis and sequences of a rank (one micro-step)"
for expert in 1 8 64 128; do
  for sequences in 1 2 4 8 16 32 64 128; do
    seconds=$(plan gpt_oss_120b h100 --ranks 1024 --expert "$expert" --batch $((1024 * sequences)) --json |
      awk '/"step": \{/ { found = 1 } found && !done && /"seconds"/ { gsub(/,/, ""); print $2; done = 1 }')
    echo "$((sequences * 4096)) $seconds"
  done >"$data/expert.$expert"
done
paste "$data"/expert.1 "$data"/expert.8 "$data"/expert.64 "$data"/expert.128 |
  awk 'BEGIN { print "tokens E=1 E=8 E=64 E=128" } { print $1, $2, $4, $6, $8 }' | column -t
gnuplot -e "data='$data'" share/doc/scaling_expert.gnuplot >share/doc/scaling_expert.svg

for collectives in ring logarithmic hierarchical; do
  heading "gpt-oss-120b on H100, --expert 8, collectives $collectives"
  for ranks in 16 64 256 1024 4096 12288; do
    seconds=$(plan gpt_oss_120b h100 --ranks "$ranks" --expert 8 --collectives "$collectives" --json |
      awk '/"step": \{/ { found = 1 } found && !done && /"seconds"/ { gsub(/,/, ""); print $2; done = 1 }')
    echo "$ranks $seconds"
  done | tee "$data/collectives.$collectives"
done
gnuplot -e "data='$data'" share/doc/scaling_collectives.gnuplot >share/doc/scaling_collectives.svg

heading "What limits: phases of DeepSeek-V3 on 2,048 H100"
plan deepseek_v3 h100 --ranks 2048 --expert 64 --node-mtbf 6335

heading "Simulated: imbalance and a late rank, gpt-oss-120b on 1,024 H100, --expert 64"
for routing in balanced zipf:0.1 zipf:0.3 zipf:0.6 zipf:1; do
  echo "$routing: $("$tessera" study simulate share/models/gpt_oss_120b.json --machine share/machines/h100.json \
    "${options[@]}" --sequence-length 4096 --ranks 1024 --expert 64 --routing "$routing" | grep -E '^step|busiest' | tr '\n' ' ')"
done
"$tessera" study simulate share/models/gpt_oss_120b.json --machine share/machines/h100.json "${options[@]}" \
  --sequence-length 4096 --ranks 1024 --expert 64 --late 17:0.1 | grep '^step'

heading "Beside published runs"
echo "Qwen3-30B-A3B on 16 H100, micro-steps of 4,096 tokens (Megatron, EP 16: 244 TFLOP/s per GPU, 287 with the all-to-all overlapped):"
for expert in 16 8; do
  echo "E = $expert: $("$tessera" plan share/models/qwen3_30b_a3b.json --machine share/machines/h100.json --sequence-length 4096 \
    --dtype bf16 --ranks 16 --expert "$expert" --batch 512 --micro-batch 1 | grep -E 'TFLOP|Fits|Does not' | tr '\n' ' ')"
done
