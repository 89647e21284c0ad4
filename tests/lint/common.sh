# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the lint scripts, which all take the project's root as their first argument.
root=${1:?usage: $0 ROOT}
cd "$root" || exit
found=0

# The project's own files that match any of the patterns, relative to the root, sorted.
project_files() {
  local pattern names=()
  for pattern in "$@"; do names+=(-o -name "$pattern"); done
  find src modules apps tests share slurm .ci -type f \( "${names[@]:1}" \) | LC_ALL=C sort
}

report() {
  printf '%s\n' "$*"
  found=$((found + 1))
}

finish() {
  if ((found > 0)); then
    printf '%d finding(s): %s\n' "$found" "$1"
    exit 1
  fi
}
