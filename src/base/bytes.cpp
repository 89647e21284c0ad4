// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.hpp"

#include <fmt/format.h>

#include <array>
#include <fstream>

namespace tessera {

std::string format_bytes(double num_bytes) {
  constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  while (num_bytes >= 1024.0 && unit + 1 < units.size()) {
    num_bytes /= 1024.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", num_bytes)
                   : fmt::format("{:.2f} {}", num_bytes, units[unit]);
}

HostMemory host_memory() {
  std::ifstream file("/proc/meminfo");
  HostMemory memory;
  std::string key, unit;
  std::int64_t kib = 0;
  while (file >> key >> kib) {
    std::getline(file, unit);
    if (key == "MemTotal:") memory.total_bytes = kib * 1024;
    if (key == "MemAvailable:") memory.free_bytes = kib * 1024;
  }
  return memory;
}

}  // namespace tessera
