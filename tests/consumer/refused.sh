#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What find_package(tessera) says where it cannot serve. Usage: refused.sh SOURCE BUILD PREFIX
set -euo pipefail
prefix=$3
folder=$2/tests/consumer/refused
rm -rf "$folder"

# refused NAME LANGUAGES ARGUMENTS TEXT: a project that asks so is not configured, and told the text.
refused() {
  local project=$folder/$1
  mkdir -p "$project"
  printf 'cmake_minimum_required(VERSION 3.25)\nproject(%s LANGUAGES %s)\nfind_package(tessera %s)\n' "$1" "$2" "$3" \
    >"$project/CMakeLists.txt"
  if cmake -S "$project" -B "$project/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" >"$project/log" 2>&1; then
    echo "FAILED: find_package(tessera $3) with $2 was accepted"
    exit 1
  fi
  tr -s ' \n' ' ' <"$project/log" | grep -qF -- "$4" || { cat "$project/log"; echo "FAILED: not told '$4'"; exit 1; }
}

refused c_alone "C" "CONFIG REQUIRED COMPONENTS c" "write project(... LANGUAGES C CXX)"
refused newer "C CXX" "0.2 CONFIG REQUIRED" "compatible with requested version \"0.2\""
refused older "C CXX" "0.0.1 CONFIG REQUIRED" "compatible with requested version \"0.0.1\""
refused unknown "C CXX" "0.1 CONFIG REQUIRED COMPONENTS moe bakery" "component 'bakery' is not installed"
refused fortran "C CXX" "0.1 CONFIG REQUIRED COMPONENTS fortran" "component fortran wants"
