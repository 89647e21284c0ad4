#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A C program without CMake: MPI's compiler wrapper and pkg-config. Usage: pkg_config.sh SOURCE BUILD PREFIX
set -euo pipefail
folder=$2/tests/consumer/pkg_config
mkdir -p "$folder"
PKG_CONFIG_PATH=$(dirname "$(find "$3" -name tessera-c.pc)")
export PKG_CONFIG_PATH
[[ $(pkg-config --modversion tessera) == $("$3/bin/tessera" --version | sed 's/^tessera //; s/ .*//') ]] ||
  { echo "FAILED: pkg-config and the program tell different versions"; exit 1; }
read -ra flags <<<"$(pkg-config --cflags --libs tessera-c)"
mpicc "$1/tests/consumer/programs/zero3_arrays.c" -o "$folder/zero3_arrays" "${flags[@]}" -lm
LD_LIBRARY_PATH=$(pkg-config --variable=libdir tessera-c) "$folder/zero3_arrays" "$folder/arrays.h5" # where they are shared
