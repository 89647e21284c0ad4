#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every C++ file is as clang-format 14 (Debian 12's) writes it; other versions differ, so without that one
# the test is skipped (exit code 77).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for formatter in clang-format-14 clang-format; do
  if command -v "$formatter" >/dev/null && "$formatter" --version | grep -q 'version 14\.'; then
    while IFS= read -r file; do
      "$formatter" --dry-run --Werror "$file" >/dev/null 2>&1 || report "$file"
    done < <(project_files '*.cpp' '*.hpp')
    finish "run clang-format -i on it"
    exit 0
  fi
done
echo "skipped: clang-format 14 is not installed (apt-get install clang-format)"
exit 77
