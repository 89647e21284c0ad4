#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The CUDA build, as far as it goes without a GPU and without a Kokkos that is built for one: the device's part of every
# source compiles for sm_80 and sm_90, and the program links but for Kokkos itself. In build folders of their own, where
# a second run compiles what changed. Exit code 77: not possible here. Linking needs the host's part of every source too,
# ten minutes of two processors, and is done where TESSERA_CUDA_GATE=full.
# Usage: gate.sh compile|link|refuses|spills SOURCE HOST_BUILD FOLDER
set -euo pipefail
verb=$1 source=$2 host_build=$3 folder=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$folder/device

skip() {
  echo "skipped: $*"
  exit 77
}
command -v nvcc >/dev/null || skip "no nvcc on the PATH"
export TESSERA_GATE_HOST_BUILD=$host_build

# Host code is compiled without optimisation, device code always with it.
configure() {
  "$here/kokkos.sh" "$folder/kokkos" || exit $?
  [[ -f $build/build.ninja ]] && return
  cmake -S "$source" --preset cuda -B "$build" -DKokkos_DIR="$here" -DTESSERA_GATE_KOKKOS="$folder/kokkos/include" \
    -DTESSERA_TESTS=OFF -DTESSERA_WERROR=ON -DTESSERA_NATIVE=OFF -DCMAKE_CUDA_ARCHITECTURES="80-real;90-real" \
    -DCMAKE_CUDA_FLAGS=-Xptxas=-v -DCMAKE_CUDA_FLAGS_RELEASE=-DNDEBUG -DCMAKE_CXX_FLAGS_RELEASE="-O0 -DNDEBUG" \
    -DCMAKE_CUDA_COMPILER_LAUNCHER="$here/compile.sh" -DCMAKE_CXX_COMPILER_LAUNCHER="$here/compile.sh" \
    -DCMAKE_EXE_LINKER_FLAGS=-Wl,--warn-unresolved-symbols >"$folder/configure.log" 2>&1 ||
    { cat "$folder/configure.log"; rm -f "$build/build.ninja"; exit 1; }
}

build_targets() {
  cmake --build "$build" --parallel "$(env -u OMP_NUM_THREADS nproc)" --target "$@" -- -k 0
}

# Every source that nvcc compiles.
compile() {
  local num_sources
  configure
  build_targets build.ninja >"$folder/configure.log" 2>&1 || { cat "$folder/configure.log"; exit 1; }
  "$here/batches.sh" "$build"
  num_sources=$(grep -c ' -x cu ' "$build/compile_commands.json")
  ((num_sources > 50)) || { echo "only $num_sources sources for nvcc: is the build what it was?"; exit 1; }
  TESSERA_GATE_PASS=device ninja -C "$build" -f device.ninja -j "$(env -u OMP_NUM_THREADS nproc)" -k 0
}

# The warnings of a link from its start: every symbol that nothing defines must be one of Kokkos.
link_program() {
  local log=$folder/link.log undefined
  [[ ${TESSERA_CUDA_GATE-} == full ]] || skip "ten minutes of two processors; TESSERA_CUDA_GATE=full does it"
  build=$folder/full
  configure
  rm -f "$build/apps/tessera"
  build_targets tessera >"$log" 2>&1 || { tail -n 40 "$log"; exit 1; }
  for library in cublas nccl; do
    readelf -d "$build/apps/tessera" | grep -q "NEEDED.*lib$library" || { echo "the program does not use $library"; exit 1; }
  done
  undefined=$(sed -n 's/.*undefined reference to `\(.*\)'"'"'$/\1/p' "$log" | sort -u)
  [[ -n $undefined ]] || { echo "no warning of an undefined symbol, though Kokkos is not there: see $log"; exit 1; }
  echo "$(wc -l <<<"$undefined") undefined symbols of Kokkos"
  if grep -v -E '^(vtable for |typeinfo for |typeinfo name for |guard variable for )?([a-z ]* )?(Kokkos|desul)::' <<<"$undefined"; then
    echo "not of Kokkos (above): a source is missing from the CUDA build"
    exit 1
  fi
}

# try FILE DEFINITION: compiles a file of this folder as the kernels are.
try() {
  local command
  command=$(sed -n 's/^ *"command": "\(.*\)",$/\1/p' "$build/compile_commands.json" | grep -- '-c [^ ]*/src/kernel/rows.cpp' |
    sed -e 's/\\"//g' -e 's/ --generate-code=[^ ]*//g' -e 's/ -x cu .*//')
  # shellcheck disable=SC2086  # words of a command
  $command $2 -x cu -cubin -arch=sm_90 "$here/$1" -o "$folder/tried.cubin" 2>&1
}

refuses() {
  local plant text
  configure
  text=$(try planted.cpp "") || { echo "$text"; echo "the file is refused without a plant"; exit 1; }
  for plant in HOST_CALL CAPTURES_THIS; do
    if text=$(try planted.cpp -DPLANT_$plant); then
      echo "$plant compiled"
      exit 1
    fi
    grep 'error' <<<"$text" | head -n 1
  done
  text=$(try cublas_agrees.cpp "") || { echo "$text"; exit 1; }
}

mkdir -p "$folder"
case $verb in
  compile) compile ;;
  link) link_program ;;
  refuses) refuses ;;
  spills) "$here/kernels.sh" check "$build" "$source/share/doc/gpu_kernels.md" ;;
  *) echo "gate.sh: no verb $verb" >&2; exit 2 ;;
esac
