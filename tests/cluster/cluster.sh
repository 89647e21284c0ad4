#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The shipped templates on a real Slurm of two nodes: cluster.sh TESSERA SOURCE_DIR, in a directory for the jobs that is
# not under /tmp. Says why it is skipped (exit code 77). Each case is a function of cases.sh; TESSERA_CLUSTER_CASES, a list
# of them, chooses.
set -uo pipefail
tessera=$1 source_dir=$2
source "$source_dir/tests/cluster/slurm.sh"
source "$source_dir/tests/cluster/cases.sh"
reason=$(cluster_missing)
[[ -z $reason ]] || { echo "skipped: $reason"; exit 77; }
renice --priority -10 $$ >/dev/null 2>&1 || true # before other tests: its deadlines are short

golden=$source_dir/tests/golden/small
jobs=$PWD/jobs
rm -rf "$jobs"
mkdir -p "$jobs"
cd "$jobs" || exit 1
num_failed=0 shown=

complain() {
  echo "FAILED: $case: $1"
  num_failed=$((num_failed + 1))
  [[ ! -f ${log-} || $shown == "$case" ]] || tail -n 60 "$log" | sed 's/^/  | /'
  shown=$case
}
# within SECONDS WHAT COMMAND...: waits until the command succeeds.
within() {
  for ((i = 0; i < 5 * $1; i++)); do
    "${@:3}" && return
    sleep 0.2
  done
  complain "not within $1 s: $2"
  return 1
}

# submit NAME NODES SETTINGS: a copy of train.sbatch, edited in its marked place as a user would; sets job, output, log.
# SETTINGS replace the variables there.
submit() {
  output=$jobs/$1 log=$jobs/$1.log
  edited train.sbatch "#SBATCH --job-name=$1
#SBATCH --nodes=$2 --ntasks-per-node=2 --output=$log --time=10
environment=$source_dir/slurm/environments/plain_cluster.sh
tessera=$tessera output=$output expert=4 patience=3
train=($golden --data $golden/tokens.npy --batch 32 --lr 1e-4 --log-every 1000000)
$3
export TESSERA_DEADLINE_S=8" >"$1.sbatch"
  sbatch "$1.sbatch"
}
# edited TEMPLATE LINES: the template with these lines in its marked place.
edited() {
  lines=$2 awk '/^# ---- edit from here/ { print; print ENVIRON["lines"]; skip = 1 }
    /^# ---- to here/ { skip = 0 }
    !skip' "$source_dir/slurm/$1"
}
# The environment of a login shell, not that of this test.
sbatch() {
  job=$(env -i PATH="$PATH" HOME="$HOME" SLURM_CONF="$SLURM_CONF" nsenter --net="/run/netns/$cluster-ctl" \
    sbatch --parsable "$1") || complain "sbatch $1"
}
job_is() { [[ $(scontrol --oneliner show job "$job" 2>/dev/null) == *" JobState=$1 "* ]]; }
job_says() { [[ -f $log ]] && grep -qF -- "$1" "$log"; }
expect_said() { job_says "$1" || complain "the job did not say '$1'"; }
steps_done() { [[ -f $output/metrics.jsonl ]] && (($(wc -l <"$output/metrics.jsonl") >= $1)); }
# loss DIRECTORY STEP: the step's last one, since a restart does some again.
loss() { sed -n 's/.*"step":'"$2"',"loss":\([^,]*\),.*/\1/p' "$1/metrics.jsonl" | tail -n 1; }
# as_undisturbed STEP TOLERANCE: the run in $output has that step's loss of the main job, up to a relative tolerance.
as_undisturbed() {
  local mine reference
  mine=$(loss "$output" "$1") reference=$(loss "$jobs/main" "$1")
  awk -v a="${mine:-nan}" -v b="${reference:-nan}" -v tolerance="$2" \
    'BEGIN { d = a - b; exit !(a > 0 && b > 0 && d * d <= (tolerance * b) ^ 2) }' ||
    complain "the loss of step $1 is ${mine:-not there}, undisturbed ${reference:-not there}"
}

# However it ends: only what was seen through to its end has passed.
at_exit() {
  cluster_down
  [[ -n $seen_through ]] || exit 1
}
seen_through=
trap at_exit EXIT
started=$SECONDS
cluster_up || { echo "the cluster did not start"; tail -n 20 "$state"/*.log "$state"/*.out; exit 1; }
echo "cluster up after $((SECONDS - started)) s"
for case in ${TESSERA_CLUSTER_CASES:-"${cases[@]}"}; do
  case_started=$SECONDS log=
  "$case"
  scancel --user="$(id -un)" 2>/dev/null
  nodes_are_idle 30 || complain "the nodes do not come back"
  echo "$case: $((SECONDS - case_started)) s"
done
((num_failed == 0)) || { echo "$num_failed checks failed"; exit 1; }
seen_through=yes
