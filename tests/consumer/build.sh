#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the users' programs against the installed tree.
# Usage: build.sh SOURCE BUILD PREFIX PROGRAMS BUILD_TYPE WITH_FORTRAN [SANITIZE]
set -euo pipefail
source=$1 prefix=$3 programs=$4
cmake -S "$source/tests/consumer/programs" -B "$programs" -G Ninja -Wno-dev --no-warn-unused-cli -DCMAKE_PREFIX_PATH="$prefix" \
  -DCMAKE_BUILD_TYPE="$5" -DWITH_FORTRAN="$6" -DSANITIZE="${7-}" -DKEEP_PLUGINS="$source/share/sanitize/keep_plugins.cpp"
cmake --build "$programs" --parallel 2
