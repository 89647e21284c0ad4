#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Hugging Face to a Tessera file and back: every tensor byte for byte, of every family, MXFP4 and
# mixed element types included, on different numbers of ranks; what changes its form keeps its values.
source "$(dirname "${BASH_SOURCE[0]}")/../apps/check.sh"
same_tensors=$4

# there_and_back NAME: golden NAME to NAME.h5 on three ranks, and to the directory NAME on two.
there_and_back() {
  model=$source_dir/tests/golden/$1
  run 3 import "$model" "$directory/$1.h5"
  expect_code 0
  run 2 export "$directory/$1.h5" "$directory/$1"
  expect_code 0
  run 2 verify "$model" "$directory/$1"
  expect_code 0
}

expect_same_tensors() {
  command="same_tensors $*"
  "$same_tensors" "$@" >"$directory/stdout" 2>"$directory/stderr" || complain "tensors differ"
}

for name in small mini3 plain mxfp4 mixtral mixtral_4 qwen3_moe qwen3_moe_4 olmoe olmoe_4 \
  deepseek_v3 deepseek_v3_4 llama llama_4 qwen3 qwen3_4; do
  there_and_back "$name"
  expect_same_tensors "$model" "$directory/$name"
  cmp -s "$model/config.json" "$directory/$name/config.json" || complain "config.json differs"
done

# Several files in, one out.
there_and_back wide
expect_same_tensors "$model" "$directory/wide"

# FP8 becomes bf16, the original names become transformers', as do their configurations: once so,
# the directories come back byte for byte too.
for name in deepseek_v3_fp8 original; do
  there_and_back "$name"
  model=$directory/$name
  run 2 import "$model" "$directory/again.h5" --overwrite
  expect_code 0
  run 3 export "$directory/again.h5" "$directory/$name.again"
  expect_code 0
  expect_same_tensors "$model" "$directory/$name.again"
done

# Quantised experts as plain bf16 and back: as before, for the blocks that the rule for scales
# reproduces; every value in any case.
model=$source_dir/tests/golden/mxfp4
run 2 export "$model" "$directory/plain_experts" --experts bf16
expect_code 0
run 2 verify "$model" "$directory/plain_experts"
expect_code 0
run 2 export "$directory/plain_experts" "$directory/quantised" --experts mxfp4
expect_code 0
run 2 verify "$model" "$directory/quantised"
expect_code 0

# A bit that is not the same is found and named.
cp -r "$directory/plain_experts" "$directory/flipped"
shards=("$directory"/flipped/*.safetensors)
printf '\001' | dd of="${shards[0]}" bs=1 seek=$(($(stat -c %s "${shards[0]}") - 2)) conv=notrunc 2>/dev/null
run 2 verify "$model" "$directory/flipped"
((code != 0)) || complain "a changed tensor was not found"
finish
