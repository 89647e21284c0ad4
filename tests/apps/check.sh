# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts beside it: runs the program, looks at exit code and output.
set -uo pipefail

tessera=$1
mpiexec=$2
source_dir=$3
directory=$(mktemp -d)
mpiexec_pid= # of a job in the background, while there is one
clean_up() {
  [[ -z $mpiexec_pid ]] || kill "$mpiexec_pid" 2>/dev/null
  rm -rf "$directory"
}
trap clean_up EXIT
num_failed=0
output= errors= code=

# run NP ARGUMENTS...: NP 0 starts the program without a launcher.
run() {
  local np=$1
  shift
  command="tessera $*"
  if ((np == 0)); then
    "$tessera" "$@" >"$directory/stdout" 2>"$directory/stderr" </dev/null
  else
    "$mpiexec" -n "$np" "$tessera" "$@" >"$directory/stdout" 2>"$directory/stderr" </dev/null
  fi
  code=$?
  output=$(<"$directory/stdout")
  errors=$(<"$directory/stderr")
}

complain() {
  echo "FAILED: $command: $1"
  sed 's/^/  | /' "$directory/stdout" "$directory/stderr"
  num_failed=$((num_failed + 1))
}

expect_code() { ((code == $1)) || complain "exit code $code, expected $1"; }
expect_output() { [[ $output == *"$1"* ]] || complain "no '$1' in the output"; }
expect_error() { [[ $errors == *"$1"* ]] || complain "no '$1' in the messages"; }
# expect_once TEXT: in output and messages together.
expect_once() {
  local count
  count=$(cat "$directory/stdout" "$directory/stderr" | grep -cF -- "$1")
  ((count == 1)) || complain "'$1' occurs $count times, expected 1"
}

finish() {
  ((num_failed == 0)) || { echo "$num_failed checks failed"; exit 1; }
}
