#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds Tessera and runs its tests on another stack of compiler, MPI and libraries.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../setup/common.sh"
source "$here/../setup/packages.sh"
cache=${TESSERA_STACKS:-$root/build/stacks}
PATH+=:/usr/sbin:/sbin # chroot and debootstrap
all_stacks=$(cd "$here/stack" && printf '%s ' *.sh | sed 's/\.sh//g')

usage() {
  cat <<END
usage: share/stacks/run.sh STACK [--short] [--fresh] [ctest arguments]
       share/stacks/run.sh STACK --shell

Sets up the release of Debian that STACK names in a chroot, installs the stack's packages, builds Tessera
there and runs its tests. Stacks: $all_stacks
  --short   some tests of base, comm and kernel instead of all
  --fresh   sets the chroot up anew
  --shell   a shell in the chroot, with the mounts that the tests have; the build is in /build
Of ctest arguments such as -R kernel/ only what the chosen tests need is built.

Chroots, builds and the compiler's cache are kept in \$TESSERA_STACKS, by default build/stacks (3 GB and
more). Packages come from the mirror in apt's configuration, or from \$TESSERA_DEBIAN_MIRROR. Needs root.
Exit code: 0 all passed; 1 build or tests failed; 77 skipped, since the stack cannot be set up.
END
}

skip() {
  note "skipped: $*"
  exit 77
}

# The first mirror that apt has of Debian itself.
mirror() {
  [[ -z ${TESSERA_DEBIAN_MIRROR-} ]] || { echo "$TESSERA_DEBIAN_MIRROR"; return; }
  command -v apt-get >/dev/null || return 0
  apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
    sed -n 's/ main$//p' | grep -m1 '/debian/\?$' || true
}

# In a chroot / is no mount point whose propagation could be changed.
find_namespace() {
  namespace=(unshare --mount --pid --fork --kill-child)
  "${namespace[@]}" true 2>/dev/null && return
  namespace+=(--propagation unchanged)
  "${namespace[@]}" true 2>/dev/null || skip "no privilege to mount file systems"
}

# Mounts and processes live in namespaces of their own, which end with this script, however that ends: unshare
# itself lets SIGTERM pass by.
enter_namespace() {
  [[ $(id -u) == 0 ]] || skip "a chroot needs root"
  command -v unshare >/dev/null && command -v flock >/dev/null || skip "no unshare or flock (util-linux)"
  find_namespace
  namespace+=(env TESSERA_IN_NAMESPACE=1 bash "$here/run.sh" "$@")
  [[ $action != shell ]] || exec "${namespace[@]}"
  setpriv --pdeathsig KILL "${namespace[@]}" &
  trap 'kill -KILL $!' INT TERM
  wait $! && exit || exit $?
}

bootstrap() {
  local from
  from=$(mirror)
  [[ -n $from ]] || skip "apt knows no mirror of Debian; TESSERA_DEBIAN_MIRROR names one"
  if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || skip "debootstrap is not installed"
    (install_missing debootstrap) || skip "debootstrap cannot be installed"
  fi
  rm -rf "$chroot.partial"
  (step "set up Debian $suite" debootstrap --variant=minbase "$suite" "$chroot.partial" "$from") ||
    skip "Debian $suite cannot be set up"
  # Nothing in it is worth a wait for the disk; and a mirror's copy of unstable may be older than its week.
  echo force-unsafe-io >"$chroot.partial/etc/dpkg/dpkg.cfg.d/tessera"
  echo 'Acquire::Check-Valid-Until "false";' >"$chroot.partial/etc/apt/apt.conf.d/tessera"
  mv "$chroot.partial" "$chroot"
}

# mount_below DIRECTORY MOUNT-ARGUMENTS...: in the chroot, so that nothing of it is seen elsewhere.
mount_below() {
  mkdir -p "$chroot$1" && mount "${@:2}" "$chroot$1" && mount --make-rprivate "$chroot$1"
}

# Each is asked for: set -e does not hold where a failure is answered with skip.
mount_all() {
  trap 'umount --recursive --lazy "$chroot"' EXIT
  mkdir -p "$cache/build/$stack" "$cache/ccache" &&
    mount --bind "$chroot" "$chroot" && mount --make-rprivate "$chroot" &&
    mount_below /proc -t proc proc && mount_below /sys --rbind /sys && mount_below /dev --rbind /dev &&
    mount_below /dev/shm -t tmpfs tmpfs &&
    mount_below /tessera --bind "$root" && mount -o remount,bind,ro "$chroot/tessera" &&
    mount_below /build --bind "$cache/build/$stack" && mount_below /ccache --bind "$cache/ccache"
}

in_chroot() {
  chroot "$chroot" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    TERM="${TERM-dumb}" TESSERA_STACK="$stack" CCACHE_DIR=/ccache "$@"
}

# The chroot keeps what the stacks of its release ask for; apt is asked nothing when all of it is there.
install_packages() {
  local stamp=$chroot/etc/tessera-packages-$stack
  [[ -f $stamp && $(<"$stamp") == "${packages[*]}" ]] && return
  cp /etc/resolv.conf "$chroot/etc/resolv.conf" 2>/dev/null || true
  (step "install the packages of $stack" in_chroot /tessera/share/stacks/inside.sh "$stack" install) ||
    skip "the packages of $stack cannot be installed"
  printf '%s\n' "${packages[*]}" >"$stamp"
}

parse() {
  stack=${1-}
  case $stack in
    -h | --help) usage; exit 0 ;;
    "") usage >&2; exit 2 ;;
  esac
  [[ " $all_stacks" == *" $stack "* ]] || { note "error: '$stack' is none of the stacks $all_stacks"; exit 2; }
  shift
  fresh=false action=test ctest_arguments=()
  while (($# > 0)); do
    case $1 in
      --short)
        ctest_arguments+=(-R '^base/|^comm/(agree|communicator|process_grid|shared_memory):np2|^kernel/(attention|cross_entropy|gemm|rows):')
        ;;
      --fresh) fresh=true ;;
      --shell) action=shell ;;
      -h | --help) usage; exit 0 ;;
      *) break ;;
    esac
    shift
  done
  ctest_arguments+=("$@")
}

# A function, so that bash has read all of it before the first stack is built.
main() {
  parse "$@"
  [[ -z ${TESSERA_STACK-} ]] || skip "this is the stack $TESSERA_STACK"
  [[ -n ${TESSERA_IN_NAMESPACE-} ]] || enter_namespace "$@"
  log_dir=$cache/log/$stack
  source "$here/stack/$stack.sh"
  chroot=$cache/$suite
  mkdir -p "$cache"
  exec 9>"$chroot.lock" 8>"$cache/build-$stack.lock"
  flock 8 # one run of a stack at a time,
  flock 9 # and one that sets a chroot up
  if $fresh; then
    note "remove $chroot"
    rm -rf --one-file-system "$chroot" "$cache/build/$stack"
  fi
  [[ -d $chroot ]] || bootstrap
  mount_all || skip "the mounts of the chroot cannot be made"
  install_packages
  flock --unlock 9
  if [[ $action == shell ]]; then
    in_chroot bash -c 'cd /build && exec bash'
  else
    in_chroot /tessera/share/stacks/inside.sh "$stack" test "${ctest_arguments[@]}" || exit 1
  fi
}

main "$@"
exit
