// SPDX-License-Identifier: Apache-2.0
// A hook for fault tests: the environment variable TESSERA_FAULT makes one rank behave as if the
// system had refused it something that cannot be refused to root in a test.
#pragma once

#include <string_view>

namespace tessera::checkpoint {

/// True if TESSERA_FAULT (a comma-separated list of `<kind>:<world rank>`) names this kind on this
/// rank. Kinds: `unreadable` (opening a tensor file fails), `diskfull` (no space for a checkpoint),
/// `unsynced` (fsync of what was written fails), `noexchange` (two directories cannot change places
/// in one step). local.
bool fault_injected(std::string_view kind, int rank);

}  // namespace tessera::checkpoint
