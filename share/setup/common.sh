# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the set-up, example and test scripts: steps that are quiet unless they fail, the build, and
# the environment in which MPI runs on any machine.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build/release
log_dir=$root/build/log

note() { printf 'tessera: %s\n' "$*" >&2; }

die() {
  note "error: $*"
  exit 1
}

# step WHAT COMMAND...: runs the command with its output in a log; shows the log's end if it fails.
step() {
  local what=$1 log started=$SECONDS
  shift
  mkdir -p "$log_dir"
  log=$log_dir/${what%% *}.log
  note "$what"
  if ! "$@" </dev/null >"$log" 2>&1; then
    tail -n 40 "$log" >&2 || true
    die "$what failed after $((SECONDS - started)) s; the whole log: $log"
  fi
}

# build_release TARGET: configures build/release when that is new or CI has changed, and builds the target.
# With CI=true warnings are errors.
build_release() {
  local werror=OFF stamp=$build/.configured_with
  [[ ${CI-} == true ]] && werror=ON
  if [[ ! -f $build/build.ninja || ! -f $stamp || $(<"$stamp") != "$werror" ]]; then
    rm -f "$stamp"
    step "configure" cmake -S "$root" --preset release -DTESSERA_WERROR=$werror
    printf '%s\n' "$werror" >"$stamp"
  fi
  step "build $1 (minutes the first time)" cmake --build "$build" --target "$1"
}

# Ranks run with little /dev/shm, too.
export_mpi_environment() {
  local free_kib
  set -a
  source "$root/share/setup/mpi_environment"
  set +a
  export OMP_NUM_THREADS=1
  free_kib=$(df --output=avail /dev/shm 2>/dev/null | tail -n 1) || free_kib=0
  if [[ ! -w /dev/shm || ${free_kib:-0} -lt 262144 ]]; then
    export OMPI_MCA_btl_vader_backing_directory=${TMPDIR:-/tmp} OMPI_MCA_btl_sm_backing_directory=${TMPDIR:-/tmp}
  fi
}
