#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ls and retention: complete, unfinished and broken checkpoints of a run, and resuming among them.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
model=$source_dir/tests/golden/small
train() { run 2 train --data "$model/tokens.npy" --log-every 1000 "$@"; }

train "$model" --output "$directory/run" --steps 4 --save-every 1 --keep 2
expect_code 0
command="ls run"
[[ $(ls "$directory/run" | grep -c '\.h5$') == 2 ]] || complain "--keep 2 kept another number"
run 2 ls "$directory/run"
expect_code 0
expect_once "step-00000003.h5  complete"
expect_once "step-00000004.h5  complete, latest"
expect_output "adamw"

head -c 5000 "$directory/run/step-00000004.h5" >"$directory/run/step-00000005.h5"
head -c 9000 "$directory/run/step-00000004.h5" >"$directory/run/step-00000006.h5.partial"
run 0 ls "$directory/run"
expect_code 0
expect_once "step-00000005.h5  unusable: "
expect_once "step-00000006.h5.partial  unfinished"
expect_once "complete, latest"
run 0 ls "$directory/run/step-00000003.h5"
expect_code 0
expect_output "complete"
run 2 ls "$directory/nowhere"
expect_code 3

# What an interrupted save left goes with the next retention; the broken file is of a later step.
rm "$directory/run/step-00000005.h5"
train --resume "$directory/run" --output "$directory/run" --steps 5 --save-every 1 --keep 2
expect_code 0
command="ls run"
[[ ! -e $directory/run/step-00000006.h5.partial ]] || complain "the unfinished file stays"
[[ ! -e $directory/run/step-00000003.h5 ]] || complain "the oldest file stays"

# `latest` names a broken file, a vanished one, none.
cp "$directory/run/step-00000005.h5" "$directory/whole.h5"
head -c 5000 "$directory/whole.h5" >"$directory/run/step-00000005.h5"
train --resume "$directory/run" --output "$directory/run" --steps 6
expect_code 3
expect_once "names step-00000005.h5, which cannot be read"
expect_once "step-00000004.h5 (step 4)"
rm "$directory/run/step-00000005.h5"
train --resume "$directory/run" --output "$directory/run" --steps 6
expect_code 3
expect_once "names step-00000005.h5, which cannot be read"
run 0 ls "$directory/run"
expect_once "latest names step-00000005.h5, which is not there"
rm "$directory/run/latest"
train --resume "$directory/run" --output "$directory/run" --steps 6
expect_code 3
expect_once "no file 'latest'"
train --resume "$directory/run/step-00000004.h5" --output "$directory/run" --steps 5
expect_code 0
finish
