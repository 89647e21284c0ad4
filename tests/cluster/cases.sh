# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by cluster.sh: what jobs go through. All train the same steps, so all must end with the main job's loss.
cases=(main_job time_limit_and_requeue lost_link lost_node one_run_per_directory never_started scaling_array)
num_steps=500 # longer than the time limit of its case leaves, on a quick machine too

sent_bytes() { ip -n "$cluster-ctl" -statistics -json link show "to-$1" | grep -o '"rx":{"bytes":[0-9]*' | grep -o '[0-9]*$'; }

# Two nodes, four ranks, over TCP; before it what one should check first.
main_job() {
  local before
  before=$(sent_bytes n2)
  submit main 2 "source \"\$environment\"; srun \"\${srun_options[@]}\" --ntasks=4 $tessera doctor
train+=(--steps $num_steps)"
  within 180 "the main job is done" job_is COMPLETED
  expect_said "4 ranks on n[1-2], --expert 4, from the beginning"
  expect_said "2 nodes"
  steps_done $num_steps || complain "not all steps are there"
  (($(sent_bytes n2) - before > 10000000)) || complain "hardly anything went over the network"
}

# The job stops in time and is requeued, but a node has left: on the other two ranks go on, with two-way expert
# parallelism.
time_limit_and_requeue() {
  submit timed 1-2 "train+=(--steps $num_steps --time-margin 8)
((\${SLURM_RESTART_COUNT:-0})) || scontrol update JobId=\$SLURM_JOB_ID EndTime=now+14"
  within 30 "a step" steps_done 1
  scontrol update NodeName=n2 State=DRAIN Reason=test
  within 40 "the job is requeued" job_says "exit code 7: requeue"
  expect_said "stopped before the time limit"
  within 20 "it waits" job_is PENDING
  within 20 "its node is free" node_is n1 idle # before that an update is lost
  scontrol update JobId="$job" NumNodes=1 NumTasks=2
  within 150 "the job is done" job_is COMPLETED
  scontrol update NodeName=n2 State=RESUME
  expect_said "start 2: 2 ranks on n1, --expert 2, from step-"
  # The first step after it differs by the rounding of another grid, which the steps that follow make larger. Slurm may
  # stop this start for its time limit, too: then there is another.
  as_undisturbed $(($(sed -n 's/.*start 2: .*from step-0*\([0-9]*\).*/\1/p' "$log") + 1)) 1e-5
  as_undisturbed $num_steps 1e-2
}

# lose_node HOW COMMAND...: a node goes in mid-step; the survivors name its ranks, and the job ends.
lose_node() {
  submit "$1" 2 "train+=(--steps $num_steps --save-every 20)"
  within 40 "a checkpoint" steps_done 22
  local lost=$SECONDS
  "${@:2}"
  within 25 "survivors name the lost ranks" job_says "no sign of rank 2 (n2), rank 3 (n2)"
  echo "  named $((SECONDS - lost)) s after the node was lost, with a deadline of 8 s and a roll call of 3 s"
  within 30 "the node is seen to be down" node_is n2 down
}
lost_link() {
  lose_node link link n2 down
  link n2 up
  goes_on_to_the_end
}
lost_node() {
  lose_node node kill_node n2
  start_node n2
  goes_on_to_the_end
}
node_is() { [[ $(node_states) == *"$1:$2"* ]]; }
goes_on_to_the_end() {
  within 180 "the job is done" job_is COMPLETED
  expect_said "start 2: 4 ranks on n[1-2], --expert 4, from step-"
  as_undisturbed $num_steps 1e-6
}

# A second job in the directory of a first; the first is cancelled, and a third takes its place until it is told to stop.
one_run_per_directory() {
  local first first_log
  submit shared 1 "train+=(--steps 1000000 --save-every 50)"
  first=$job first_log=$log
  within 30 "a checkpoint" steps_done 60
  submit shared 1 "train+=(--steps $num_steps)"
  within 30 "the second job ends" job_is FAILED
  expect_said "is in use by job $first of cluster test (n"
  job=$first
  scancel "$first"
  within 20 "the first job is cancelled" job_is CANCELLED
  rm "$first_log"
  submit shared 1 "train+=(--steps 1000000)"
  within 30 "the third job goes on" job_says "first step done"
  expect_said "from step-"
  scontrol update JobId="$job" Requeue=0 # save and stop for good
  scancel --signal=USR1 "$job"
  within 30 "it stops" job_is FAILED
  expect_said "stopped by a signal before step"
  expect_said "Slurm does not requeue it"
  "$tessera" inspect "$output" >"$log.inspect" 2>&1 || complain "no complete checkpoint"
}

# One of four ranks never comes to MPI_Init: the others say so and end.
never_started() {
  printf '#!/bin/sh\n[ "$SLURM_PROCID" = 3 ] && exec sleep 1000\nexec "%s" "$@"\n' "$tessera" >lazy
  chmod +x lazy
  submit never 2 "tessera=$jobs/lazy patience=0
train+=(--steps $num_steps)"
  within 40 "the job ends" job_is FAILED
  expect_said "phase 'MPI_Init"
  expect_said "rank 0 on n1"
  expect_said "rank 2 on n2"
  job_says "rank 3 on n2" && complain "the rank that never started spoke"
}

# The study: two points, one after the other, and their report.
scaling_array() {
  log=$jobs/scaling-0.log
  edited scaling.sbatch "#SBATCH --array=0-1%1 --nodes=2 --ntasks-per-node=2 --time=5 --output=$jobs/scaling-%a.log
environment=$source_dir/slurm/environments/plain_cluster.sh tessera=$tessera output=$jobs/scaling
study=($golden --ranks 2,4 --expert 2 --batch 2 --sequence-length 16 --dtype f32 --steps 2 --repeat 2)" >scaling.sbatch
  sbatch scaling.sbatch
  within 60 "both points" test -f scaling/result-0001.h5
  expect_said "2 ranks"
  "$tessera" study report scaling >report.log 2>&1 || complain "no report: $(cat report.log)"
  grep -q "2 runs" report.log || complain "the report has not both points: $(cat report.log)"
}
