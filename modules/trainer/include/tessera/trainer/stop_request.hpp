// SPDX-License-Identifier: Apache-2.0
// SIGTERM and SIGUSR1 as a wish to stop before the next step, with a checkpoint.
#pragma once

namespace tessera::trainer {

/// Catches both signals while it lives, and restores what was there before. For programs: a linked
/// library leaves signals to its host. One at a time.
class StopRequest {
 public:
  StopRequest();
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;

  /// Whether this process was asked to stop. local.
  bool asked() const;
};

}  // namespace tessera::trainer
