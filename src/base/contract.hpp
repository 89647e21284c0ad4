// SPDX-License-Identifier: Apache-2.0
// Contracts: conditions that only a programmer can break. Checked in every build type, because a
// rank that goes on with a broken invariant hangs the others.
#pragma once

namespace tessera {

/// Prints the broken condition with its place and aborts the process. local.
[[noreturn]] void contract_failed(const char* condition, const char* file, int line);

}  // namespace tessera

#define TESSERA_EXPECT(condition)         \
  (static_cast<bool>(condition) ? void(0) \
                                : ::tessera::contract_failed(#condition, __FILE__, __LINE__))
