#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of a random rank at 50 random moments of a save: the file is the older or the newer
# checkpoint each time, bit for bit. interrupted_save.sh MPIEXEC NP PROGRAM
set -uo pipefail
mpiexec=$1 np=$2 program=$3
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
file=$directory/model.h5

give_up() {
  echo "FAILED: $1"
  cat "$directory/out" "$directory/err"
  exit 1
}
# Without this the launcher waits a second between its signals to the other ranks.
export OMPI_MCA_odls_base_sigkill_timeout=0
run() { "$mpiexec" -n "$np" "$program" "$file" "$1" "$2" >"$directory/out" 2>"$directory/err"; }

run 0 0 || give_up "the first save"
run 0 0 || give_up "the second save" # over an older file, as all that follow
took=$(sed -n 's/^took //p' "$directory/out")
generation=2 num_old=0 num_new=0
for ((seed = 1; seed <= 50; ++seed)); do
  run "$seed" "$((took + took / 10))"
  code=$?
  found=$(sed -n 's/^generation //p' "$directory/out")
  ((code == 0)) || grep -q '^generation' "$directory/out" || give_up "run $seed found no checkpoint"
  ((seed == 1 || found == generation || found == generation + 1)) ||
    give_up "run $seed found generation $found after $generation"
  ((seed == 1)) || if ((found == generation)); then ((++num_old)); else ((++num_new)); fi
  generation=$found
done
run 0 0 || give_up "the file after the last interruption"
[[ ! -e $file.partial ]] || give_up "the last save left its temporary file"
echo "$num_old interrupted saves left the older checkpoint, $num_new the newer one"
((num_old >= 10)) || give_up "too few saves were interrupted"
