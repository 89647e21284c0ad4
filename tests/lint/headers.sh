#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone. Usage: headers.sh ROOT CACHE_DIR COMPILER FLAGS...
# A header that a .cpp includes before anything else has been compiled alone by the build. The others are
# compiled here, again only when they or something they include has changed since they last passed. Most of the time would
# go to parsing Kokkos, so those that include it anyway, directly or through others, find it parsed.
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

parse_kokkos() {
  local parsed=$cache/kokkos.hpp
  is_fresh "$parsed.d" && return
  echo '#include <Kokkos_Core.hpp>' >"$parsed"
  "$compiler" -x c++-header "$parsed" -o "$parsed.gch" -MD -MF "$parsed.d" "$@"
}

# The headers that include Kokkos: those that name it, then those that name one of these, and so on.
reaching_kokkos() {
  local names='Kokkos_[A-Za-z_]*\.hpp' found='' before=none
  while [[ $found != "$before" ]]; do
    before=$found
    found=$(project_files '*.hpp' | xargs grep -lE "^#include [<\"]($names)[>\"]")
    names=$(sed -E 's/^(src|tests|modules\/[a-z0-9_]*\/include)\///; p; s/.*\///' <<<"$found" | sort -u | paste -s -d '|')
    names="Kokkos_[A-Za-z_]*\\.hpp|${names//./\\.}"
  done
  echo "$found"
}

# Headers that are the first include of a .cpp, relative to the root.
first_includes() {
  local source name candidate
  while IFS= read -r source; do
    name=$(sed -n 's/^#include [<"]\([^>"]*\.hpp\)[>"].*/\1/p; /^#include/q' "$source")
    [[ -n $name ]] || continue
    for candidate in "${source%/*}/$name" "src/$name" "tests/$name" modules/*/include/"$name"; do
      if [[ -f $candidate ]]; then
        echo "$candidate"
        break
      fi
    done
  done < <(project_files '*.cpp')
}

rm -f "$cache/failed"
declare -A built=()
while IFS= read -r header; do built[$header]=1; done < <(first_includes)
declare -A has_kokkos=()
while IFS= read -r header; do has_kokkos[$header]=1; done < <(reaching_kokkos)
parse_kokkos "$@"
while IFS= read -r header; do
  # The first where Catch2 is 3; the others belong to a project of their own, which finds the installed headers.
  [[ -z ${built[$header]-} && $header != tests/support/catch2_v3/* && $header != tests/consumer/* ]] || continue
  while (($(jobs -pr | wc -l) >= $(nproc))); do wait -n || true; done
  check "$header" "$@" ${has_kokkos[$header]+-include "$cache/kokkos.hpp"} &
done < <(project_files '*.hpp')
wait
if [[ -f $cache/failed ]]; then
  while IFS= read -r header; do report "$header does not compile alone"; done < <(sort "$cache/failed")
fi
finish "include what the header uses"
