#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A file has 350 lines at most; size_exceptions.txt lists those with a reason to be longer, up to 600.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
exceptions=tests/lint/size_exceptions.txt

is_exception() { awk -v file="$1" '$1 == file && NF > 1 { found = 1 } END { exit !found }' "$exceptions"; }

while IFS= read -r file; do
  lines=$(wc -l <"$file")
  if ((lines > 600)); then
    report "$file: $lines lines, 600 is the end"
  elif ((lines > 350)) && ! is_exception "$file"; then
    report "$file: $lines lines and not listed with a reason in $exceptions"
  elif ((lines <= 350)) && is_exception "$file"; then
    report "$file: $lines lines, so no longer an exception: remove it from $exceptions"
  fi
done < <(project_files '*.cpp' '*.hpp' '*.sh' '*.py' '*.cmake' CMakeLists.txt)
while read -r file _; do
  [[ $file == \#* || -z $file || -f $file ]] || report "$file: listed in $exceptions and not there"
done <"$exceptions"
finish "split the file by topic"
