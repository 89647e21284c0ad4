#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs one fuzz target on its corpus for a few seconds; an input that breaks it is left in the current directory.
# Usage: run.sh PROGRAM [libFuzzer's options, e.g. -runs=-1 -max_total_time=600]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=${1-}
if [[ -z $program ]]; then
  echo "skipped: no clang with libFuzzer was found at configuration (apt-get install clang-14 libclang-rt-14-dev)"
  exit 77
fi
parser=${program##*/fuzz_}
base=$PWD
if [[ -w /dev/shm ]]; then base=/dev/shm; fi
TMPDIR=$(mktemp -d "$base/fuzz_$parser.XXXXXX") # for the targets' files
trap 'rm -rf "$TMPDIR"' EXIT
mkdir "$TMPDIR/found" # libFuzzer adds what is new to it
export TMPDIR ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=32 UBSAN_OPTIONS=print_stacktrace=1
# An error would otherwise end with 77, which is "skipped".
export LSAN_OPTIONS=suppressions=$here/leaks.supp:print_suppressions=0
"$program" -seed=1 -runs=20000 -max_total_time=4 -timeout=10 -rss_limit_mb=512 -malloc_limit_mb=512 \
  -error_exitcode=1 -verbosity=0 -print_final_stats=1 -artifact_prefix="fuzz_$parser-" "${@:2}" \
  "$TMPDIR/found" "$here/corpus/$parser"
