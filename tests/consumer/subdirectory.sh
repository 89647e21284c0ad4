#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tessera as a sub-directory of a user's project: no tests, no program, no installation, the same target names.
# Usage: subdirectory.sh SOURCE BUILD
set -euo pipefail
folder=$2/tests/consumer/subdirectory
cmake -S "$1/tests/consumer/subdirectory" -B "$folder" -G Ninja -Wno-dev -DCMAKE_BUILD_TYPE=Debug -DTESSERA_SOURCE="$1"
cmake --build "$folder" --parallel 2 --target program
"$folder/program"
