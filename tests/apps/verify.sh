#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# verify: whole files, damaged files, and comparisons across formats.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
model=$source_dir/tests/golden/mini3
file=$directory/mini3.h5

run 2 import "$model" "$file"
expect_code 0
for np in 0 1 3; do
  run "$np" verify "$file"
  expect_code 0
  expect_output "mini3.h5: as it was written; 55 tensors, 139 fingerprints"
done
of_file=$(grep '^fingerprint of the parameters: ' <<<"$output")

# The fingerprint of a model does not depend on its format.
run 2 verify "$model"
expect_code 0
expect_output "$of_file"
expect_output "states no fingerprints"
for np in 0 2; do
  run "$np" verify "$file" "$model"
  expect_code 0
  expect_output "equal to $model"
  run "$np" verify "$model" "$file"
  expect_code 0
done
for quantised in mxfp4 original deepseek_v3_fp8; do
  run 2 import "$source_dir/tests/golden/$quantised" "$directory/$quantised.h5"
  run 2 verify "$directory/$quantised.h5" "$source_dir/tests/golden/$quantised"
  expect_code 0
  expect_output "equal to"
done

# damage FILE BYTE: changes one bit of it.
damage() {
  perl -e 'open my $f, "+<", $ARGV[0] or die; binmode $f; seek $f, $ARGV[1], 0; read $f, my $b, 1;
    seek $f, $ARGV[1], 0; print $f chr(ord($b) ^ 16)' "$1" "$2"
}
offset_of() { h5dump -H -p -d "$1" "$file" | sed -n 's/^ *OFFSET //p'; }

experts=/parameters/model.layers.1.mlp.experts.down_proj
cp "$file" "$directory/damaged.h5"
damage "$directory/damaged.h5" $(($(offset_of $experts) + 2 * (5 * 48 * 28 + 3 * 28 + 7) + 1))
run 2 verify "$directory/damaged.h5"
expect_code 3
expect_output "$experts: expert 5 is not what was written"
expect_output "damaged.h5: 1 difference;"
run 2 verify "$directory/damaged.h5" "$model"
expect_code 3
expect_output "model.layers.1.mlp.experts.down_proj: expert 5: 1 of 1344 elements differ, first [5, 7, 3]: "
run 2 verify "$directory/damaged.h5" --json
expect_code 3
expect_output '"equal": false'
run 2 train "$directory/damaged.h5" --data "$model/tokens.npy" --steps 1 --output "$directory/run"
expect_code 3
expect_once "'model.layers.1.mlp.experts.down_proj', expert 5 has fingerprint"

cp "$file" "$directory/damaged.h5"
damage "$directory/damaged.h5" "$(offset_of /files/config.json)"
run 2 verify "$directory/damaged.h5"
expect_code 3
expect_output "/files/config.json is not what was written"

cp "$file" "$directory/damaged.h5"
damage "$directory/damaged.h5" 20 # in the superblock
run 2 verify "$directory/damaged.h5"
expect_code 3
expect_once "damaged.h5"
finish
