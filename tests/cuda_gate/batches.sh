#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A ninja file that compiles the device's part of every source of a build for CUDA. Parsing Kokkos is most of the time, so
# sources without kernels are compiled several at a time, where their commands are the same.
# Usage: batches.sh BUILD    writes BUILD/device.ninja and BUILD/batches/
set -euo pipefail
build=$1
batch_size=8
launcher=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/compile.sh
mkdir -p "$build/batches"

# object, source and the words of the command before them, with tabs between.
commands() {
  sed -n 's/^ *"command": "\(.*nvcc .*\) -x cu -c \([^ ]*\) -o \([^ ]*\)",$/\3\t\2\t\1/p' "$build/compile_commands.json" | sed 's/\\"/"/g'
}

# edge OBJECT SOURCE WORDS
edge() { printf 'build %s: device %s\n  words = %s\n' "$1" "$2" "${3//\$/\$\$}"; }

# Puts a source into the current batch of its command, a new one every batch_size sources.
declare -A batch_of=() members=()
num_batches=0
batch() {
  local words=$2
  if [[ -z ${batch_of[$words]-} ]] || ((members[$words] == batch_size)); then
    batch_of[$words]=batches/$((++num_batches)).cpp members[$words]=0
    : >"$build/${batch_of[$words]}.new"
    edge "${batch_of[$words]}.o" "${batch_of[$words]}" "$words"
  fi
  printf '#include "%s"\n' "$1" >>"$build/${batch_of[$words]}.new"
  members[$words]=$((members[$words] + 1))
}

{
  printf 'ninja_required_version = 1.5\nbuilddir = batches\nrule device\n'
  printf '  command = %s $words -MD -MT $out -MF $out.d -x cu -c $in -o $out\n  depfile = $out.d\n  deps = gcc\n' "$launcher"
  while IFS=$'\t' read -r object source words; do
    if grep -q KOKKOS_LAMBDA "$source"; then edge "$object" "$source" "$words"; else batch "$source" "$words"; fi
  done < <(commands)
} >"$build/device.ninja"

# What has not changed keeps its time.
for written in "$build"/batches/*.new; do
  cmp -s "$written" "${written%.new}" || cp "$written" "${written%.new}"
  rm "$written"
done
