#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# calibrate, study run, study report, study simulate: from a machine file to the pictures, on two ranks.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
export TMPDIR=$directory
cat >"$directory/config.json" <<'END'
{"model_type": "gpt_oss", "hidden_size": 64, "intermediate_size": 32, "num_local_experts": 4,
 "num_experts_per_tok": 2, "num_hidden_layers": 2, "vocab_size": 128, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": null}
END

run 2 calibrate "$directory/machine.json" --expert 2 --trial --repeat 3 --name here
expect_code 0
expect_error "7 of 7: a training step"
for line in "node latency" "95 % interval" "bf16 products" "factor of expert forward" "machine.json written"; do
  expect_output "$line"
done
grep -q '"name": "here"' "$directory/machine.json" || complain "no name in the machine file"
[[ -z $(find "$directory" -name 'tessera-bench-*') ]] || complain "a temporary file was left"
run 2 calibrate "$directory/absent/machine.json" --trial --repeat 1
expect_code 3
expect_once "cannot write"

sweep=(study run "$directory/config.json" --ranks 1,2 --expert 1,2 --sequence-length 32 --steps 1 --repeat 2
  --machine "$directory/machine.json" --output "$directory/results")
run 2 "${sweep[@]}" --list
expect_code 0
(($(wc -l <"$directory/stdout") == 4)) || complain "not three points"
# As a job array: one file per index.
for index in 0 1 2; do
  run 2 "${sweep[@]}" --index $index
  expect_code 0
  expect_output "predicted"
  [[ -f $directory/results/result-000$index.h5 ]] || complain "no result of index $index"
done
# As plain processes: all of them.
run 2 "${sweep[@]}" --routing zipf:1 --scaling strong --batch 2
expect_code 0
(($(wc -l <"$directory/stdout") == 3)) || complain "not three lines"
run 2 "${sweep[@]}" --index 3
expect_code 2
expect_once "--index 3 of 3 points"
run 0 "${sweep[@]}" --index 1
expect_code 2
expect_error "needs 2 ranks and the job has 1"

run 0 study report "$directory/results" --output "$directory/report"
expect_code 0
expect_output "3 runs"
for file in report.md report.html phases.svg efficiency.svg speed_up.svg predictions.svg; do
  [[ -s $directory/report/$file ]] || complain "no $file"
done
grep -q '| strong | 2 = 2 x 1 | 2 | zipf:1 |' "$directory/report/report.md" || complain "no strong run in the report"
run 0 study report "$directory"
expect_code 3
expect_error "tessera study run"

run 0 study simulate "$source_dir/share/models/gpt_oss_20b.json" --ranks 512 --expert 32 --sequence-length 4096 \
  --machine "$source_dir/share/machines/h100.json" --routing zipf:0.5 --late 3:0.5
expect_code 0
expect_output "messages"
run 0 study simulate "$directory/config.json" --ranks 8 --expert 4 --machine "$directory/machine.json" --late 3
expect_code 2
expect_error "RANK:SECONDS"
finish
