#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the commands of README.md's section "From Hugging Face and back" as they are printed, in a directory
# that looks like the repository's root.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"

root=$directory/root
mkdir -p "$root/build/release/apps"
ln -s "$tessera" "$root/build/release/apps/tessera"
ln -s "$source_dir/share" "$root/share"

# The sh blocks between this heading and the next of its level, as one script that stops at a failure.
script=$directory/readme-commands.sh
{
  echo 'set -euxo pipefail'
  awk '/^## /{inside = /^## From Hugging Face and back/} /^```/{block = inside && /^```sh/; next} block' \
    "$source_dir/README.md"
} >"$script"

command="the commands of README.md"
(cd "$root" && bash "$script") >"$directory/stdout" 2>"$directory/stderr" </dev/null
code=$?
output=$(<"$directory/stdout")
errors=$(<"$directory/stderr")
expect_code 0
expect_output "as it was written"
expect_output "equal to share/example/model"
expect_output "equal to build/borders/trained after rounding"
expect_output "complete, latest"
# All of them have run: the last one is there.
[[ -f $root/build/borders/trained-mxfp4/config.json ]] || complain "the last command left nothing"
finish
