#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Draws what moe_surrogate wrote. Usage: picture.sh SCRIPT FOLDER
set -euo pipefail
command -v gnuplot >/dev/null || { echo "skipped: no gnuplot"; exit 77; }
rm -f "$2/terms.png"
gnuplot -e "data='$2/terms.txt'; picture='$2/terms.png'" "$1"
[[ $(head -c 4 "$2/terms.png" | od -An -c | tr -d ' ') == '211PNG' && $(stat -c %s "$2/terms.png") -gt 20000 ]] ||
  { echo "FAILED: $2/terms.png is no picture of something"; exit 1; }
