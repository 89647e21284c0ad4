#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A run from job to job: stops before its time limit and for signals at any phase, goes on where it was, and
# keeps its directory to itself.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
source "$(dirname "${BASH_SOURCE[0]}")/background.sh"
data=(--data "$golden/tokens.npy" --batch 4)

# wait_for WHAT COMMAND...: until the command succeeds, 30 s at most.
wait_for() {
  for ((i = 0; i < 600; i++)); do
    "${@:2}" && return
    sleep 0.05
  done
  complain "waited in vain for $1"
}
# launch NP OPTIONS...: a job in the background, from its first moment on.
launch() {
  command="tessera train ${*:2} (background)"
  : >"$directory/stderr"
  "$mpiexec" -n "$1" "$tessera" train "$golden" "${data[@]}" --log-every 1000000 "${@:2}" \
    >"$directory/stdout" 2>"$directory/stderr" </dev/null &
  mpiexec_pid=$!
}
# The kernel's list of signals that a rank catches has USR1, number 10.
catches_usr1() {
  local pid
  pid=$(a_rank)
  [[ -n $pid ]] && ((0x$(awk '/^SigCgt/{print $2}' "/proc/$pid/status") & 0x200))
}
signal_a_rank() { kill "-$1" "$(a_rank)"; }
losses() { sed 's/.*"step":\([0-9]*\),"loss":\([^,]*\),.*/\1 \2/' "$1/metrics.jsonl"; }
# as_if_whole DIRECTORY STEPS: the losses are those of a run that nobody disturbed.
as_if_whole() {
  command="losses of $1"
  paste -d ' ' <(losses "$1") <(losses "$directory/whole" | head -n "$2") |
    awk -v steps="$2" '{ d = $2 - $4; if ($1 != $3 || d * d > 1e-10) bad = 1 } END { exit bad || NR != steps }' ||
    complain "differ from those of the undisturbed run"
}
no_lock() { [[ ! -e $1/lock ]] || complain "the lock is left"; }

run 2 train "$golden" "${data[@]}" --expert 2 --steps 8 --output "$directory/whole"
expect_code 0
no_lock "$directory/whole"

# Before the time limit there is a checkpoint.
run 2 train "$golden" "${data[@]}" --expert 2 --steps 1000000 --log-every 1000000 --time-limit 12 --time-margin 3 \
  --output "$directory/timed"
expect_code 7
expect_error "stopped before the time limit before step"
expect_error "3.0 s are kept free"
run 0 inspect "$directory/timed"
expect_code 0
no_lock "$directory/timed"

# --continue begins, and goes on where it was, on as many ranks as there are; it is the same run.
run 2 train "$golden" "${data[@]}" --expert 2 --continue --steps 3 --total-steps 8 --output "$directory/run"
expect_code 0
run 3 train "$golden" "${data[@]}" --expert 3 --continue --steps 6 --total-steps 8 --output "$directory/run"
expect_code 0
run 1 train "$golden" "${data[@]}" --continue --steps 8 --total-steps 8 --output "$directory/run"
expect_code 0
as_if_whole "$directory/run" 8
run 2 train "$golden" "${data[@]}" --continue --resume "$directory/run" --output "$directory/run"
expect_code 2
before=$(cksum "$directory/run"/*)

# A signal before MPI has started: the run does not even load, and changes nothing.
launch 2 --continue --steps 100 --output "$directory/run"
wait_for "a rank that catches USR1" catches_usr1
signal_a_rank USR1
ends_within 20
expect_code 7
expect_error "while the model was loaded"
[[ $(cksum "$directory/run"/*) == "$before" ]] || complain "the directory has changed"

# While a checkpoint is written: it becomes complete. SIGPIPE, which comes when MPI writes to a rank that is gone, does
# not end a rank.
launch 2 --continue --steps 100000 --total-steps 100000 --save-every 1 --keep 2 --output "$directory/run"
wait_for "a save" compgen -G "$directory/run/*.partial" >/dev/null
signal_a_rank PIPE
signal_a_rank TERM
ends_within 20
expect_code 7
run 2 verify "$directory/run/$(<"$directory/run/latest")"
expect_code 0
no_lock "$directory/run"

# One run in a directory. The second says whose it is; when the first was killed, its lock is stale.
start 2
run 2 train "$golden" "${data[@]}" --continue --steps 1 --output "$directory/run"
expect_code 3
expect_once "is in use by a run on"
expect_error "--output"
kill -9 $(ranks) "$mpiexec_pid"
ends_within 5
[[ -e $directory/run/lock ]] || complain "killed ranks removed their lock"
run 2 train "$golden" "${data[@]}" --continue --steps 1 --output "$directory/run"
expect_code 0
expect_once "is stale (that process has ended)"

# A run whose lock is taken away writes no checkpoint any more.
start 2 --save-every 1000000
rm "$directory/run/lock"
signal_a_rank USR1
ends_within 20
expect_code 3
expect_once "its lock is gone"
[[ ! -e $directory/run/latest ]] || complain "a checkpoint was written"

# A rank that never starts: the others wait in MPI_Init, say so and end.
command="a rank that never starts"
TESSERA_DEADLINE_S=3 "$mpiexec" -n 2 sh -c '[ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 0 ] || exec sleep 60; exec "$0" doctor' \
  "$tessera" >"$directory/stdout" 2>"$directory/stderr" </dev/null &
mpiexec_pid=$!
ends_within 20
((code != 0)) || complain "exit code 0"
expect_error "MPI_Init"
expect_error "rank 0 on $(hostname)"
finish
