#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What run.sh has done in the chroot of a stack, with the source in /tessera and the build in /build.
# Usage: inside.sh STACK install | inside.sh STACK test [ctest arguments]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../setup/common.sh"
source "$here/../setup/packages.sh"
log_dir=/build/log
build=/build
stack=$1 action=$2
shift 2
options=() environment=() tests=()
source "$here/stack/$stack.sh"
if ((${#environment[@]} > 0)); then export "${environment[@]}"; fi

install() {
  install_missing "${packages[@]}" ccache
  if declare -F mend >/dev/null; then mend; fi
}

configure() {
  local wanted stamp=$build/.configured_with
  # The kernels have their own -O3; for the rest -O1 takes the compiler half the time. The compiler's cache wants no
  # precompiled headers, and without them it shows what a test forgot to include.
  options=(-G Ninja -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" -DTESSERA_NATIVE=ON -DTESSERA_WERROR=ON
    -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache "${options[@]}")
  wanted="${options[*]}"
  if [[ -f $build/build.ninja && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    step "update the build" ninja -C "$build" build.ninja # what tests there are has to be known before
    return
  fi
  rm -rf "$stamp" "$build/CMakeCache.txt"
  step "configure" cmake -S /tessera -B "$build" "${options[@]}"
  printf '%s\n' "$wanted" >"$stamp"
}

# The files of this build that the commands of the chosen tests name.
programs_of_tests() {
  ctest --test-dir "$build" --show-only=json-v1 "$@" | grep -o "\"$build/[^\"]*\"" | tr -d '"' |
    sed "s,^$build/,," | sort -u |
    comm -12 - <(ninja -C "$build" -t targets all | sed -n 's/: [^:]*$//p' | sort -u)
}

# One line for the table in README.md: what CMake found, the MPI package and what ctest says at its end.
report() {
  printf '%s: %s %s, %s: %s\n' "$stack" "$mpi" "$(dpkg-query --show --showformat='${Version}' "$mpi")" \
    "$(sed -n 's/^TESSERA_STACK:INTERNAL=//p' "$build/CMakeCache.txt")" "$1"
}

run_tests() {
  local log=$log_dir/ctest.log code=0 programs
  mapfile -t programs < <(if (($# > 0)); then programs_of_tests "$@"; else echo all; fi)
  ((${#programs[@]} > 0)) || programs=(help)
  step "build (minutes the first time)" cmake --build "$build" --parallel "$(nproc)" --target "${programs[@]}" -- -k 0
  note "run the tests"
  ctest --test-dir "$build" --parallel $((2 * $(nproc))) --output-on-failure --no-label-summary --no-tests=error \
    "$@" </dev/null >"$log" 2>&1 || code=$?
  if ((code != 0)); then grep -Ev ' Passed +[0-9.]+ sec$|^ +Start ' "$log"; fi
  sed -n '/did not run:/,$p' "$log"
  report "$(grep 'tests passed' "$log" || echo 'no test was run')"
  return "$code"
}

case $action in
  install) install ;;
  test)
    configure
    if (($# == 0)); then set -- "${tests[@]}"; fi
    run_tests "$@"
    ;;
esac
