#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# inspect names parameters as transformers has them in memory, whatever holds them in the file.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
golden=$source_dir/tests/golden

# expect_row NAME DTYPE SHAPE REST: with any blanks between them.
expect_row() {
  tr -s ' ' <"$directory/stdout" | grep -qxF -- "$1 $2 $3 $4" || complain "no row '$1 $2 $3 $4'"
}

prefix=model.layers.0.mlp.experts
run 0 inspect "$golden/mxfp4" --expert 3
expect_row "$prefix.gate_up_proj" mxfp4 "[3, 32, 64]" "0.003 [1, 32, 64]"
[[ $output != *_blocks* && $output != *_scales* ]] || complain "blocks and scales are rows of their own"

run 2 inspect "$golden/original" # names of the first release
expect_row "$prefix.gate_up_proj" mxfp4 "[5, 64, 64]" "0.010 model.safetensors"
expect_row model.layers.0.self_attn.k_proj.weight bf16 "[16, 64]" "0.002 model.safetensors"

run 0 inspect "$golden/deepseek_v3_fp8"
expect_row model.layers.1.mlp.experts.gate_up_proj fp8 "[4, 12, 136]" "0.006 model.safetensors"
[[ $output != *scale_inv* ]] || complain "FP8 scales are rows of their own"

run 0 inspect "$golden/mixtral" --json
expect_code 0
[[ $output != *w1* ]] || complain "matrices of single experts are rows of their own"
expect_output '"name": "model.layers.1.mlp.experts.gate_up_proj"'

# gpt-oss-20b: one layer's first matrix, in a file without content.
mkdir "$directory/large"
sed -E 's/("(hidden|intermediate)_size"): [0-9]+/\1: 2880/; s/("num_local_experts"): [0-9]+/\1: 32/' \
  "$golden/mxfp4/config.json" >"$directory/large/config.json"
perl -e '$b = 32 * 5760 * 90 * 16; $s = 32 * 5760 * 90; $e = $b + $s;
  $name = "model.layers.0.mlp.experts.gate_up_proj";
  $header = qq({"${name}_blocks":{"dtype":"U8","shape":[32,5760,90,16],"data_offsets":[0,$b]},)
          . qq("${name}_scales":{"dtype":"U8","shape":[32,5760,90],"data_offsets":[$b,$e]}});
  print pack("Q<", length $header), $header; truncate STDOUT, 8 + length($header) + $e;' \
  >"$directory/large/model.safetensors"
run 0 inspect "$directory/large" --expert 4
expect_code 0
expect_row "$prefix.gate_up_proj" mxfp4 "[32, 2880, 5760]" "268.945 [8, 2880, 5760]"
finish
