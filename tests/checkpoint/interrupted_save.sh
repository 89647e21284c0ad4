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
# Open MPI 4.1's launcher, when its ranks are gone, now and then waits for one of its own threads for
# ever; what the ranks printed counts.
run() {
  timeout --signal=KILL 30 "$mpiexec" -n "$np" "$program" "$file" "$1" "$2" >"$directory/out" 2>"$directory/err"
}

run 0 0 || give_up "the first save"
run 0 0 || give_up "the second save" # over an older file, as all that follow
# Within how many microseconds a rank dies: what a save takes, followed as the machine gets busy, so
# that about half of the saves are interrupted.
within=$(sed -n 's/^took //p' "$directory/out")
generation=2 num_old=0 num_new=0
for ((seed = 1; seed <= 50; ++seed)); do
  run "$seed" "$within"
  code=$?
  found=$(sed -n 's/^generation //p' "$directory/out")
  ((code == 0)) || grep -q '^generation' "$directory/out" || give_up "run $seed found no checkpoint"
  ((seed == 1 || found == generation || found == generation + 1)) ||
    give_up "run $seed found generation $found after $generation"
  if ((seed > 1 && found == generation)); then
    num_old=$((num_old + 1)) within=$((within * 5 / 4))
  elif ((seed > 1)); then
    num_new=$((num_new + 1)) within=$((within * 4 / 5 + 100))
  fi
  generation=$found
done
run 0 0 || give_up "the file after the last interruption"
[[ ! -e $file.partial ]] || give_up "the last save left its temporary file"
echo "$num_old interrupted saves left the older checkpoint, $num_new the newer one"
((num_old >= 10 && num_new >= 5)) || give_up "the moments were not spread over a save"
