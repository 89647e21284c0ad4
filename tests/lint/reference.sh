#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every symbol of tessera.h is documented, and completely: doxygen has nothing to complain of. Without doxygen the test
# is skipped. Usage: reference.sh DOXYFILE FOLDER
set -euo pipefail
command -v doxygen >/dev/null || { echo "skipped: doxygen is not installed"; exit 77; }
mkdir -p "$2"
{ cat "$1"; echo "OUTPUT_DIRECTORY = $2"; echo "WARN_AS_ERROR = FAIL_ON_WARNINGS"; } | doxygen -
