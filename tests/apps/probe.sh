#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# probe and train as other tools call them: options, datasets, metrics.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
model=$source_dir/tests/golden/small
out=$directory/probe.h5

run 2 import "$model" "$directory/model.h5"
expect_code 0
options=(--tokens "$model/tokens.npy" --labels "$model/labels.npy" --dtype f32 --expert 2 --steps 2
  --optimizer adamw --lr 1e-3 --betas 0.9,0.99 --eps 1e-4 --weight-decay 0.1 --clip 1)
run 2 probe "$model" "${options[@]}" --output "$out"
expect_code 0
expect_output "loss 5.94"
expect_output "loss before step 2:"
for dataset in loss logits grad_norm losses grad/model.layers.1.mlp.experts.gate_up_proj \
  param/model.layers.0.self_attn.sinks; do
  h5dump -H -d "/$dataset" "$out" >/dev/null 2>&1 || complain "no dataset /$dataset"
done
# The imported file gives the same numbers as the directory.
run 2 probe "$directory/model.h5" "${options[@]}" --output "$directory/of_file.h5"
expect_code 0
contents() { h5dump -m %.17g "$1" | tail -n +2; } # all but the name; HDF5 2 writes equal contents into unequal bytes
[[ $(contents "$out" | wc -l) -gt 1000 ]] || complain "h5dump shows no contents"
cmp -s <(contents "$out") <(contents "$directory/of_file.h5") || complain "the imported model gives another report"
# All labels ignored: loss 0, no step, a warning.
perl -e 'print "\x93NUMPY\1\0", pack("v", 118), sprintf("%-117s\n",
  "{\x27descr\x27: \x27<i8\x27, \x27fortran_order\x27: False, \x27shape\x27: (4, 24), }"), pack("q<", -100) x 96' \
  >"$directory/ignored.npy"
run 2 probe "$model" --tokens "$model/tokens.npy" --labels "$directory/ignored.npy" --steps 1 --output "$out"
expect_code 0
expect_output "loss 0 over 0 targets"
expect_error "no label takes part"
run 0 probe "$model" --tokens "$directory/none.npy" --output "$out"
expect_code 3
run 0 probe "$model" --tokens "$model/tokens.npy" --dtype f16 --output "$out"
expect_code 2

run 3 train "$model" --data "$model/tokens.npy" --steps 2 --batch 4 --expert 3 --dtype bf16 --output "$directory/run"
expect_code 0
[[ $(wc -l <"$directory/run/metrics.jsonl") == 2 ]] || complain "not one line of metrics per step"
for key in step loss grad_norm lr step_s tokens_per_s peak_rss_mib; do
  [[ $(grep -c "\"$key\":" "$directory/run/metrics.jsonl") == 2 ]] || complain "no $key in the metrics"
done
[[ $(head -c 4 "$directory/run/loss.png") == $'\x89PNG' ]] || complain "no loss curve"
finish
