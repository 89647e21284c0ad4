// SPDX-License-Identifier: Apache-2.0
// SIGTERM and SIGUSR1 as a wish to stop after the current step, with a checkpoint.
#pragma once

#include "comm/communicator.hpp"

namespace tessera::trainer {

/// Catches both signals while it lives, and restores what was there before. For programs: a linked
/// library leaves signals to its host. One at a time.
class StopRequest {
 public:
  StopRequest();
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;

  /// Whether any rank was asked to stop; all ranks get the same answer. collective over world.
  bool any(const comm::Communicator& world) const;
};

}  // namespace tessera::trainer
