#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# export and import as commands: what they say beforehand, what they refuse, and what is on disk
# when they fail. tests/golden/round_trip.sh compares what they write.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
model=$source_dir/tests/golden/mini3
file=$directory/model.h5
out=$directory/out

expect_nothing() {
  [[ ! -e $1 && ! -e $1.partial ]] || complain "$1 or $1.partial is there"
}

# Headers only: nothing is written, and the plan is the same that is carried out.
run 2 import "$model" "$file" --dry-run
expect_code 0
expect_output "as expected (54)"
expect_once "by 2 ranks"
expect_once "memory "
expect_output "376.96 KiB, one file"
expect_nothing "$file"
run 2 import "$model" "$file"
expect_code 0
expect_once "wrote 376.96 KiB"
run 2 export "$file" "$out" --max-shard-size 50KB --dry-run
expect_code 0
expect_output "54 tensors in 10 safetensors files"
expect_nothing "$out"
run 2 export "$file" "$out" --max-shard-size 50KB
expect_code 0
expect_once "wrote 376.96 KiB"
shards=("$out"/model-000*-of-00010.safetensors)
((${#shards[@]} == 10)) || complain "${#shards[@]} files, expected 10"
cmp -s "$model/config.json" "$out/config.json" || complain "config.json differs"

# What exists stays.
run 2 export "$file" "$out"
expect_code 2
expect_once "--overwrite"
run 1 export "$model" "$out" --overwrite
expect_code 0
[[ $(echo "$out"/*.safetensors) == "$out/model.safetensors" ]] || complain "old files are left"
cp "$file" "$out/kept.h5"
run 1 export "$file" "$out" --overwrite
expect_code 2
expect_once "kept.h5"

# Wrong requests.
run 1 export "$file" "$directory/no" --experts int4
expect_code 2
expect_once "bf16 or mxfp4"
run 1 export "$file" "$directory/no" --max-shard-size 5QB
expect_code 2
expect_once "5QB"
run 2 export "$file" "$directory/no" --experts mxfp4
expect_code 2
expect_once "not a multiple of 32"
run 2 export "$source_dir/tests/golden/mixtral" "$directory/no" --experts mxfp4
expect_code 2
expect_once "model.layers.0.mlp.experts.gate_up_proj"
run 1 export "$file" "$directory/nowhere/no"
expect_code 3
run 2 import "$file" "$directory/no.h5"
expect_code 3
expect_nothing "$directory/no"
expect_nothing "$directory/no.h5"

# A tensor that is missing is named beforehand, and exported without where that is allowed.
mkdir "$directory/short"
cp "$model/config.json" "$directory/short"
perl -0777 -pe 's/"lm_head\.weight"/"lm_head.other_"/' "$model/model.safetensors" >"$directory/short/model.safetensors"
run 2 import "$directory/short" "$directory/no.h5" --dry-run
expect_code 3
expect_output "lm_head.weight"
expect_output "lm_head.other_"
run 2 export "$directory/short" "$directory/less" --allow-missing lm_head.weight --allow-unexpected 'lm_head.*'
expect_code 0
grep -aq '"lm_head' "$directory/less/model.safetensors" && complain "wrote what was missing"

# A damaged file is found before the directory gets its name.
offset=$(h5dump -p -H -d /parameters/model.norm.weight "$file" | sed -n 's/^ *OFFSET \([0-9]*\)$/\1/p' | head -n 1)
cp "$file" "$directory/damaged.h5"
printf '\377' | dd of="$directory/damaged.h5" bs=1 seek="$offset" conv=notrunc 2>/dev/null
run 2 export "$directory/damaged.h5" "$directory/no"
expect_code 3
expect_once "'model.norm.weight'"
expect_nothing "$directory/no"
run 2 export "$directory/damaged.h5" "$directory/damaged" --no-verify
expect_code 0

# No room: found by rank 0 before, by another rank when it writes.
for rank in 0 1; do
  TESSERA_FAULT=diskfull:$rank run 2 export "$file" "$directory/no"
  expect_code 3
  expect_once "tessera: error"
  expect_nothing "$directory/no"
done
finish
