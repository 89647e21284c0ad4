#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# import and inspect on a small Hugging Face checkpoint.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
model=$source_dir/tests/golden/mini3

run 0 inspect "$model" --expert 3
expect_code 0
expect_output "Hugging Face directory"
expect_output "3 layers, hidden 48, 8 experts (top 3)"
expect_output "[8, 48, 56]" # gate_up_proj as transformers has it
expect_output "[3, 48, 56] or [2, 48, 56]"
run 0 inspect "$model" --expert 9
expect_code 2

for np in 1 2 3; do
  run "$np" import "$model" "$directory/np$np.h5"
  expect_code 0
  expect_once "np$np.h5: read"
  cmp -s "$directory/np1.h5" "$directory/np$np.h5" || complain "differs from the import by one rank"
done
run 2 import "$model" "$directory/np1.h5"
expect_code 2
expect_once "--overwrite"
run 2 import "$model" "$directory/np1.h5" --overwrite
expect_code 0
run 2 import "$directory/np1.h5" "$directory/again.h5"
expect_code 3
[[ ! -e $directory/again.h5 ]] || complain "a failed import left its file"

# Both kinds of checkpoint are the same model: every number that probe computes is equal.
for kind in directory file; do
  checkpoint=$model
  [[ $kind == file ]] && checkpoint=$directory/np3.h5
  run 2 probe "$checkpoint" --tokens "$model/tokens.npy" --expert 2 --output "$directory/probe_$kind.h5"
  expect_code 0
done
h5diff "$directory/probe_directory.h5" "$directory/probe_file.h5" >"$directory/stdout" ||
  complain "differs from the directory's"

run 0 inspect "$model" --json
expect_code 0
grep -oE '"(name|dtype|bytes)": [^,]*|^ +[0-9]+,?$' <<<"$output" >"$directory/of_directory"
run 2 inspect "$directory/np2.h5" --json
expect_code 0
expect_output '"kind": "Tessera file"'
expect_output '"step": 0'
grep -oE '"(name|dtype|bytes)": [^,]*|^ +[0-9]+,?$' <<<"$output" >"$directory/of_file"
cmp -s "$directory/of_directory" "$directory/of_file" || complain "names, dtypes, shapes or sizes differ"

# inspect shows what is there, a model that cannot be run included.
mkdir "$directory/odd"
cp "$model/config.json" "$directory/odd"
perl -e '$header = q({"model.layers.0.mlp.experts.down_proj":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}});
  print pack("Q<", length $header), $header, "\0\0"' >"$directory/odd/model.safetensors"
for format in "" --json; do
  run 0 inspect "$directory/odd" --expert 2 $format # a scalar with an expert's name
  expect_code 0
  expect_output "model.layers.0.mlp.experts.down_proj"
done
printf 'no JSON \377' >"$directory/odd/config.json"
run 2 inspect "$directory/odd" --json
expect_code 0
expect_output '"config": "no JSON'
expect_once "tessera warning"
finish
