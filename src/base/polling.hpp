// SPDX-License-Identifier: Apache-2.0
// Communication that moves on only while somebody asks for it, as MPI's does: long computations on
// the host ask every now and then, so that data travels meanwhile.
#pragma once

#include <functional>

namespace tessera {

/// `poll` is called by this thread's poll_now_and_then() until it returns false. It must not throw.
/// local.
void poll_until_false(std::function<bool()> poll);

/// Polls what this thread has given to poll_until_false(), if it last did so 200 us ago or more.
/// Costs next to nothing where there is nothing. local.
void poll_now_and_then();

}  // namespace tessera
