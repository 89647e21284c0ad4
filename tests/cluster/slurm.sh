#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A Slurm cluster of two nodes, n1 and n2, on this machine: slurmctld and two slurmd in network namespaces of their
# own, joined by a bridge; /tmp and /dev/shm are private to each node. Nothing of the machine itself is changed.
# As root. Sourced by cluster.sh; by hand, until you leave the shell:  tests/cluster/slurm.sh
cluster_missing() { # why it cannot run here; nothing if it can
  local program
  [[ $(id -u) == 0 ]] || { echo "needs root"; return; }
  for program in slurmctld slurmd srun munged ip nsenter unshare setpriv; do
    command -v "$program" >/dev/null || { echo "needs $program (packages slurm-wlm, munge, iproute2, util-linux)"; return; }
  done
  [[ $PWD/ != /tmp/* && $PWD/ != /dev/shm/* ]] || { echo "the directory is under /tmp, which is private to each node"; return; }
  unshare --net --mount true 2>/dev/null || echo "may not make namespaces"
}

# Names end in this shell's number: several clusters may live side by side.
cluster=ts$$
state=/run/tessera-cluster-$$
nodes=(n1 n2)
address() { echo "10.77.0.1${1#n}"; }
export SLURM_CONF=$state/slurm.conf

# at ctl|n1|n2 COMMAND...: in its network; Slurm's commands are given in ctl.
at() { nsenter --net="/run/netns/$cluster-$1" "${@:2}"; }
squeue() { at ctl squeue "$@"; }
scontrol() { at ctl scontrol "$@"; }
scancel() { at ctl scancel "$@"; }
sinfo() { at ctl sinfo "$@"; }

write_configuration() {
  cat >"$SLURM_CONF" <<EOF
ClusterName=test
SlurmctldHost=ctl(10.77.0.1)
AuthType=auth/munge
AuthInfo=socket=$state/munge/socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation=$state/state
SlurmdSpoolDir=$state/spool.%n
SlurmdPidFile=$state/slurmd.%n.pid
SlurmctldPidFile=$state/slurmctld.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.%n.log
SlurmctldTimeout=10
SlurmdTimeout=4
MessageTimeout=2
InactiveLimit=0
KillWait=15
CompleteWait=0
UnkillableStepTimeout=10
BatchStartTimeout=10
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
$(for node in "${nodes[@]}"; do echo "NodeName=$node NodeAddr=$(address "$node") CPUs=2 State=UNKNOWN"; done)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
}

start_munged() {
  mkdir "$state/munge"
  head -c 1024 /dev/urandom >"$state/munge/key"
  chown -R munge: "$state/munge"
  chmod 755 "$state/munge"
  chmod 400 "$state/munge/key"
  setpriv --reuid=munge --regid=munge --clear-groups munged --foreground --force --key-file="$state/munge/key" \
    --socket="$state/munge/socket" --pid-file="$state/munge/pid" --log-file="$state/munge/log" \
    --seed-file="$state/munge/seed" >"$state/munged.out" 2>&1 &
  echo $! >"$state/munged.launched"
  for ((i = 0; i < 100; i++)); do [[ -S $state/munge/socket ]] && return; sleep 0.05; done
}

# in_node NAME COMMAND...: with that host name and private /tmp, /dev/shm and /etc/hosts.
in_node() {
  at "$1" unshare --mount --uts sh -c 'hostname "$1"; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /tmp
    mount --bind "$2" /etc/hosts; shift 2; exec "$@"' sh "$1" "$state/hosts" "${@:2}"
}
start_node() { # as after a reboot: what a killed daemon left is gone
  rm -rf "$state/spool.$1"
  in_node "$1" slurmd -D -N "$1" >"$state/$1.out" 2>&1 &
  echo $! >"$state/$1.launched"
}
# Power loss: all that runs there, at once.
kill_node() { ip netns pids "$cluster-$1" | xargs -r kill -9; }
link() { ip -n "$cluster-ctl" link set "to-$1" "$2"; } # link n2 up|down
node_states() { sinfo --noheader --Node --format="%N:%t" | tr '\n' ' '; }

cluster_up() {
  local node
  mkdir -p "$state/state"
  { echo "127.0.0.1 localhost"; echo "10.77.0.1 ctl"; for node in "${nodes[@]}"; do echo "$(address "$node") $node"; done; } \
    >"$state/hosts"
  write_configuration
  setsid -f bash "${BASH_SOURCE[0]}" reap $$ >/dev/null 2>&1 </dev/null
  start_munged
  ip netns add "$cluster-ctl"
  ip -n "$cluster-ctl" link set lo up
  ip -n "$cluster-ctl" link add bridge type bridge
  ip -n "$cluster-ctl" address add 10.77.0.1/24 dev bridge
  ip -n "$cluster-ctl" link set bridge up
  in_node ctl slurmctld -D -c >"$state/ctl.out" 2>&1 &
  for node in "${nodes[@]}"; do
    ip netns add "$cluster-$node"
    ip -n "$cluster-ctl" link add "to-$node" type veth peer name eth0 netns "$cluster-$node"
    ip -n "$cluster-ctl" link set "to-$node" master bridge up
    ip -n "$cluster-$node" address add "$(address "$node")/24" dev eth0
    ip -n "$cluster-$node" link set eth0 up
    ip -n "$cluster-$node" link set lo up
    start_node "$node"
  done
  nodes_are_idle 20
}
# nodes_are_idle SECONDS: waits for it.
nodes_are_idle() {
  for ((i = 0; i < 5 * $1; i++)); do
    [[ $(node_states 2>/dev/null) == "n1:idle n2:idle " ]] && return
    sleep 0.2
  done
  echo "the nodes are $(node_states)"
  return 1
}

cluster_down() {
  local name
  for name in n1 n2 ctl; do
    [[ -e /run/netns/$cluster-$name ]] || continue
    ip netns pids "$cluster-$name" | xargs -r kill -9
    ip netns del "$cluster-$name" # its links and the bridge go with it
  done
  [[ ! -s $state/munged.launched ]] || kill "$(<"$state/munged.launched")" 2>/dev/null
  rm -rf "$state"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  if [[ ${1-} == reap ]]; then # the cluster ends with the shell that started it, however that ends
    cluster=ts$2 state=/run/tessera-cluster-$2
    while kill -0 "$2" 2>/dev/null; do sleep 1; done
    cluster_down
    exit
  fi
  reason=$(cluster_missing)
  [[ -z $reason ]] || { echo "no cluster here: $reason"; exit 77; }
  trap cluster_down EXIT
  cluster_up && sinfo
  nsenter --net="/run/netns/$cluster-ctl" bash --noprofile
fi
