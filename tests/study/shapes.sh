# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the measurements of plan and simulation: models that no calibration has seen.

# A gpt-oss: shape FILE HIDDEN INNER EXPERTS TOP LAYERS VOCABULARY HEADS KV_HEADS
shape() {
  printf '{"model_type": "gpt_oss", "hidden_size": %s, "intermediate_size": %s, "num_local_experts": %s,
 "num_experts_per_tok": %s, "num_hidden_layers": %s, "vocab_size": %s, "num_attention_heads": %s,
 "num_key_value_heads": %s, "head_dim": 64, "pad_token_id": null}\n' "${@:2}" >"$1"
}
# write_shapes DIRECTORY
write_shapes() {
  shape "$1/wide.json" 1024 512 8 2 3 8192 16 4
  shape "$1/many.json" 512 512 32 4 4 4096 8 2
  shape "$1/deep.json" 768 1024 4 1 6 16384 12 4
}
# Of numbers, one per line: the median and the range.
median_and_range() {
  sort -g | awk '{ v[NR] = $1 } END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
    printf "%8.1f %%   %6.1f to %.1f\n", m, v[1], v[NR] }'
}
# Of the lines that end so: the mean distance of the medians.
mean_distance() {
  awk '{ m = $(NF - 4); sum += m < 0 ? -m : m } END { printf "mean distance of the medians: %.1f %% over %d runs\n", sum / NR, NR }'
}
