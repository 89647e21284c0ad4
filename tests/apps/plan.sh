#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# plan: memory, traffic and time from config.json and a machine file; 98,304 ranks; what is wrong is said once.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
models=$source_dir/share/models
machines=$source_dir/share/machines

run 0 plan "$models/gpt_oss_120b.json" --ranks 64 --expert 8 --sequence-length 4096 --dtype bf16 --recompute layer \
  --machine "$machines/h100.json"
expect_code 0
for line in "116.83 B parameters" "64 ranks = 8 expert x 8 replica, 8 per node" "optimizer" "Fits into 80.00 GiB" \
  "replica, experts" "bound by" "expert backward" "TFLOP/s per rank" "a checkpoint of" "Daly"; do
  expect_output "$line"
done
run 0 plan "$models/gpt_oss_20b.json" --ranks 16,64,256 --sequence-length 4096 --dtype bf16 --recompute layer \
  --machine "$machines/h100.json"
expect_code 0
expect_output "efficiency"
(($(grep -cE '^ +(16|64|256) ' "$directory/stdout") == 3)) || complain "not one line for each number of ranks"
run 0 plan "$models/deepseek_v3.json" --ranks 98304 --sequence-length 4096 --dtype bf16 --recompute layer \
  --machine "$machines/h100.json" --json
expect_code 0
for key in best_expert step bound rank_bytes traffic_bytes; do
  expect_output "\"$key\":"
done
run 0 plan "$models/gpt_oss_20b.json" --ranks 16 --sequence-length 4096
expect_code 0
[[ $output != *"step time"* ]] || complain "times without a machine"

run 2 plan "$models/gpt_oss_20b.json" --ranks 16 --sequence-length 128 --machine "$directory/absent.json"
expect_code 3
expect_once "absent.json cannot be read"
echo '{"format": "tessera machine", "version": 7}' >"$directory/new.json"
run 2 plan "$models/gpt_oss_20b.json" --ranks 16 --sequence-length 128 --machine "$directory/new.json"
expect_code 3
expect_once "version is 7; this program reads 1"
run 0 plan "$models/gpt_oss_20b.json" --ranks 16,32 --expert 4 --sequence-length 128
expect_code 2
expect_error "one number of ranks"
run 0 plan "$models/gpt_oss_20b.json" --ranks 16 --sequence-length 128 --machine "$machines/h100.json" \
  --collectives magic
expect_code 2
expect_error "use ring, logarithmic or hierarchical"
finish
