# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced after check.sh: training in the background on the golden model, to be disturbed.
golden=$source_dir/tests/golden/small

# start NP OPTIONS...: a long job in the background, left alone until it has done two steps.
start() {
  rm -rf "$directory/run"
  command="tessera train (background)"
  "$mpiexec" -n "$1" "$tessera" train "$golden" --data "$golden/tokens.npy" --batch 4 --expert 2 \
    --steps 1000000 --log-every 1000000 --output "$directory/run" "${@:2}" \
    >"$directory/stdout" 2>"$directory/stderr" </dev/null &
  mpiexec_pid=$!
  for ((i = 0; i < 300; i++)); do
    [[ -f $directory/run/metrics.jsonl ]] && (($(wc -l <"$directory/run/metrics.jsonl") >= 2)) && return
    sleep 0.1
  done
  complain "did not start"
}
# children PID...: their process ids; a bare system has no pgrep.
children() {
  local parent
  for parent; do
    grep -l "^PPid:[[:space:]]*$parent\$" /proc/[0-9]*/status 2>/dev/null | sed 's,^/proc/,,; s,/status$,,'
  done
}
# ranks: process ids of that job's ranks, mpiexec's children under Open MPI and its proxy's under MPICH.
ranks() {
  local level pid
  level=$(children "$mpiexec_pid")
  for pid in $level $(children $level); do
    [[ $(</proc/"$pid"/comm) == tessera* ]] && echo "$pid"
  done
}
a_rank() { ranks | tail -n 1; }
# ends_within SECONDS: waits for it and sets code, output and errors.
ends_within() {
  for ((i = 0; i < 10 * $1; i++)); do
    kill -0 "$mpiexec_pid" 2>/dev/null || break
    sleep 0.1
  done
  if kill -0 "$mpiexec_pid" 2>/dev/null; then
    complain "still runs after $1 s"
    kill -9 "$mpiexec_pid"
  fi
  wait "$mpiexec_pid"
  code=$?
  mpiexec_pid=
  output=$(<"$directory/stdout")
  errors=$(<"$directory/stderr")
}
# a_rank_is_killed, a_rank_stops: in a job of four ranks, which must end; what it says is the caller's to check.
a_rank_is_killed() {
  start 4
  kill -9 "$(a_rank)"
  ends_within 20
  ((code != 0)) || complain "exit code 0 after a rank was killed"
  expect_error "signal 9"
}
a_rank_stops() {
  start 4 --deadline 3
  local stopped
  stopped=$(a_rank)
  kill -STOP "$stopped"
  ends_within 30
  ((code != 0)) || complain "exit code 0 after a rank stopped"
  kill -9 "$stopped" 2>/dev/null
}
