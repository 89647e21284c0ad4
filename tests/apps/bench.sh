#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bench and train --profile on a tiny model: all lines are there, the files are JSON with all ranks.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
model=$source_dir/tests/golden/small

run 0 bench --help
expect_code 0
expect_output "Examples:"
run 2 bench --hidden 64 --intermediate 32 --experts 4 --top-k 2 --vocab 97 --heads 4 --kv-heads 2 \
  --head-size 16 --sequence-length 32 --repeat 1 --dtype bf16 --json "$directory/bench.json"
expect_code 0
for line in "f32 multiply-add" "bf16 multiply-add, registers" "bf16 product" "memory triad, one rank alone" "memory triad, all ranks" \
  "message latency" "message rate" "file read" "expert forward" "expert backward" "attention forward, window 128" \
  "rms_norm backward" "swiglu forward" "head: vocabulary product" "adamw" "gather, experts of a layer" \
  "reduce-scatter, dense layer" "dispatch forward" "combine backward" "optimizer" "100.0%" "traffic [MiB" "world"; do
  expect_output "$line"
done
for key in machine kernels step traffic logical_mib share_of_roof share_of_registers share_of_step; do
  grep -q "\"$key\":" "$directory/bench.json" || complain "no $key in the JSON"
done
grep -q '"num_ranks": 2' "$directory/bench.json" || complain "not two ranks in the JSON"

run 0 bench --only experts --expert-tokens 3,8 --hidden 64 --intermediate 32 --experts 4 --repeat 1 \
  --json "$directory/experts.json"
expect_code 0
expect_output "3 tokens per expert, forward"
expect_output "8 tokens per expert, both"
[[ $output != *"attention forward"* ]] || complain "--only experts has timed more"
grep -q '"tokens": 8' "$directory/experts.json" || complain "no experts in the JSON"

# Of a model its configuration, which may be all there is of it.
mkdir "$directory/model"
cp "$model/config.json" "$directory/model"
run 2 bench "$directory/model" --layers 1 --expert 2 --sequence-length 16 --repeat 1
expect_code 0
expect_output "gpt_oss, 1 layers"
# Loading and saving alone, from either kind of checkpoint; nothing stays behind.
run 2 import "$model" "$directory/small.h5"
for source in "$model" "$directory/small.h5"; do
  TMPDIR=$directory run 2 bench "$source" --files --expert 2 --repeat 1 --json "$directory/files.json"
  expect_code 0
  for line in "plain pread" "load, proved by fingerprints" "plain write" "save, fsync included" "save / write and fsync"; do
    expect_output "$line"
  done
  [[ $output != *"attention forward"* ]] || complain "--files has timed kernels"
  grep -q '"load, proved' "$directory/files.json" || complain "no load in the JSON"
  [[ -z $(find "$directory" -name 'tessera-bench-*') ]] || complain "a temporary file was left"
done
run 0 bench --files
expect_code 2
run 0 bench "$directory/none" --files
expect_code 3
run 2 bench --batch 1
expect_code 2
expect_once "each needs a sequence"
run 0 bench "$directory/none"
expect_code 3
run 0 bench --hidden 65536 --intermediate 65536 --experts 512 --layers 2
expect_code 4
expect_once "--layers"

run 2 train "$model" --data "$model/tokens.npy" --steps 5 --batch 4 --expert 2 --profile --no-save \
  --output "$directory/run"
expect_code 0
[[ -z $(find "$directory/run" -name '*.h5') ]] || complain "--no-save has saved"
expect_output "phase [ms per step]"
expect_output "mean of 4 steps, the first of the run left out"
for phase in embed "attention forward" "expert backward" head optimizer; do
  grep -q "\"phase\": \"$phase\"" "$directory/run/profile.json" || complain "no $phase in profile.json"
  for rank in 0 1; do
    count=$(grep -cF "{\"name\":\"$phase\",\"ph\":\"X\"" "$directory/run/trace.json")
    ((count > 0)) || complain "no $phase in trace.json"
    grep -F "{\"name\":\"$phase\"" "$directory/run/trace.json" | grep -q "\"pid\":$rank," ||
      complain "no $phase of rank $rank in trace.json"
  done
done
(($(grep -c '"name":"step"' "$directory/run/trace.json") == 6)) || complain "not three steps of two ranks in the trace"
finish
