// SPDX-License-Identifier: Apache-2.0
// Who holds a run's directory, as the lock file tells it, and whether that run still exists.
#pragma once

#include <cstdint>
#include <string>

#include "slurm_job.hpp"

namespace tessera::trainer {

struct LockOwner {
  std::string host, user, since;
  std::int64_t pid = 0;
  std::int64_t start_ticks = 0;     ///< of the process: numbers are used again
  std::string boot, pid_namespace;  ///< in which the number means something
  SlurmJob slurm;
};

/// This process. local.
LockOwner own_lock_owner();

/// One line of JSON and back; text that is none gives an owner without a host. local.
std::string to_json(const LockOwner& owner);
LockOwner parse_lock_owner(const std::string& json);

/// "job 17 of cluster test (n1, process 1234 of user ann, since 2026-05-04 10:11:12)". local.
std::string describe(const LockOwner& owner);

/// Why the owner is known to be gone; empty if it is there or may be. Asks squeue where the owner
/// is a job of this cluster. local.
std::string why_gone(const LockOwner& owner);

}  // namespace tessera::trainer
