// SPDX-License-Identifier: Apache-2.0
// Amounts of memory: as text, and how much the machine has.
#pragma once

#include <cstdint>
#include <string>

namespace tessera {

/// "512 B", "1.50 GiB": the largest unit that leaves at least 1.
std::string format_bytes(double num_bytes);
inline std::string format_bytes(std::int64_t num_bytes) {
  return format_bytes(static_cast<double>(num_bytes));
}

/// Of the processors; what other processes may take in the next moment included [bytes].
struct HostMemory {
  std::int64_t free_bytes = 0;   ///< what a process can still get; 0 where the system does not tell
  std::int64_t total_bytes = 0;  ///< of this node
};
/// local.
HostMemory host_memory();

}  // namespace tessera
