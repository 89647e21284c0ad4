#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a command with TESSERA_SMALL_DISK naming a file system of 4 MiB that only it sees. Mounting
# needs privileges; without them the test is skipped (77).
# In a chroot `/` is no mount point whose propagation could be changed.
alone="unshare --mount"
$alone true 2>/dev/null || alone="unshare --mount --propagation unchanged"
$alone true 2>/dev/null || { echo "skipped: no privilege to mount a file system"; exit 77; }
exec $alone sh -c '
  directory=$(mktemp -d) || exit 1
  if ! mount -t tmpfs -o size=4m tmpfs "$directory"; then rmdir "$directory"; exit 77; fi
  TESSERA_SMALL_DISK=$directory "$@"
  code=$?
  umount "$directory" && rmdir "$directory"
  exit $code' sh "$@"
