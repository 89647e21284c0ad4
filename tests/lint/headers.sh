#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone. Usage: headers.sh ROOT CACHE_DIR COMPILER FLAGS...
# A header is compiled again only when it or something it includes has changed since it last passed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cache=$2 compiler=$3
shift 3
mkdir -p "$cache"

# Whether the header passed after its last change: its dependency file is newer than all that it names.
is_fresh() {
  local passed=$1 dependency
  [[ -f $passed ]] || return 1
  while IFS= read -r dependency; do
    [[ -f $dependency && ! $dependency -nt $passed ]] || return 1
  done < <(tr -s " \\\\" "\n" <"$passed" | sed "/:\$/d; /^\$/d")
}

compile_alone() {
  local header=$1 passed=$2
  shift 2
  local unchecked=$passed.new
  rm -f "$passed"
  printf '#include "%s"\n' "$PWD/$header" |
    "$compiler" -x c++ - -fsyntax-only -MD -MF "$unchecked" -MT header "$@" || { rm -f "$unchecked"; return 1; }
  mv "$unchecked" "$passed"
}

check() {
  local passed=$cache/${1//\//__}.d
  is_fresh "$passed" || compile_alone "$1" "$passed" "${@:2}" || echo "$1" >>"$cache/failed"
}

rm -f "$cache/failed"
while IFS= read -r header; do
  while (($(jobs -pr | wc -l) >= $(nproc))); do wait -n || true; done
  check "$header" "$@" &
done < <(project_files '*.hpp')
wait
if [[ -f $cache/failed ]]; then
  while IFS= read -r header; do report "$header does not compile alone"; done < <(sort "$cache/failed")
fi
finish "include what the header uses"
