// SPDX-License-Identifier: Apache-2.0
// Never two runs in one directory: DIR/lock names the one that is at work there.
#pragma once

#include <filesystem>
#include <string>

#include "comm/communicator.hpp"

namespace tessera::trainer {

/// Holds the directory while it lives. The lock is a file of rank 0's with host, process and Slurm
/// job; one whose owner is gone (its process on this host, its job in the queue, an earlier start
/// of this very job) is taken over.
class RunLock {
 public:
  /// Makes the directory unless it is there. Throws Error::file that names the owner, if another
  /// run has it or may have it. collective over world; errors are agreed.
  RunLock(const comm::Communicator& world, std::filesystem::path directory);
  /// Gives the directory back, and removes it if it was made here and holds nothing. local.
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  /// Throws Error::file if the lock is not this run's any more: somebody removed it, and another
  /// run may be at work. To be asked before a checkpoint is written. collective over world; errors
  /// are agreed.
  void require(const comm::Communicator& world) const;

 private:
  void take();

  std::filesystem::path directory_;
  std::string content_;  ///< of the lock; empty on ranks other than 0
  bool made_directory_ = false;
};

}  // namespace tessera::trainer
