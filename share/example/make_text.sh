#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes DIRECTORY/text.txt, the King James Bible without verse numbers (Debian's bible-kjv), and
# DIRECTORY/text.u16, the same with each byte as one little-endian uint16 token.
set -eu
if [ $# -ne 1 ]; then
  echo "usage: $0 DIRECTORY" >&2
  exit 2
fi
if ! command -v bible >/dev/null; then
  echo "make_text.sh: the program 'bible' is missing (it holds the text); apt-get install bible-kjv" >&2
  exit 1
fi
mkdir -p "$1"
bible -f gen1:1-rev22:21 | sed 's/^[0-9A-Za-z]*:[0-9]* //' >"$1/text.txt.partial"
# Debian's text has not changed since 1996; a short one means that `bible` failed inside the pipe.
if [ "$(wc -l <"$1/text.txt.partial")" -ne 31102 ]; then
  echo "make_text.sh: 'bible' gave $(wc -l <"$1/text.txt.partial") verses instead of 31102" >&2
  exit 1
fi
mv "$1/text.txt.partial" "$1/text.txt"
perl -0777 -ne 'print pack("v*", unpack("C*", $_))' "$1/text.txt" >"$1/text.u16.partial"
mv "$1/text.u16.partial" "$1/text.u16"
