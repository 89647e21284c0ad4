// SPDX-License-Identifier: Apache-2.0
// The one wait loop of all communication: polls with a back-off, so that ranks that share a core
// let each other run, and gives up at a deadline.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "comm/collectives.hpp"

namespace tessera::comm {

/// Which call on which communicator, for error texts.
struct CallSite {
  std::string communicator;
  OperationKind operation = OperationKind::barrier;
  std::string what;
  int rank = 0;
  int size = 1;
  std::chrono::milliseconds deadline{0};
};

/// `"all_gather 'layers.3.expert' on replica, rank 2 of 4"`. local.
std::string describe(const CallSite& site);

/// Polls `done` until it returns true; false if that takes longer than `deadline`. local.
bool poll_until(const std::function<bool()>& done, std::chrono::milliseconds deadline);

/// Polls `done` until it returns true. Past site.deadline: logs where this rank stood and throws
/// Error::communication. local.
void wait_until(const CallSite& site, const std::function<bool()>& done);

/// Completes `operation`. Past site.deadline: logs where this rank stood and throws
/// Error::communication; errors of the backend get the call site as their beginning.
void wait_for(const CallSite& site, Operation& operation);

}  // namespace tessera::comm
