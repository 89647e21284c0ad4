// SPDX-License-Identifier: Apache-2.0
#include "support/peak_memory.hpp"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>

namespace tessera::test {
namespace {

std::int64_t proportional_set_size() {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("Pss:")) return std::stoll(line.substr(4)) * 1024;
  }
  return 0;
}

}  // namespace

PeakMemory::PeakMemory() : baseline_(proportional_set_size()), thread_([this] { sample(); }) {}

PeakMemory::~PeakMemory() { stop(); }

std::int64_t PeakMemory::stop() {
  running_ = false;
  if (thread_.joinable()) thread_.join();
  return peak_ - baseline_;
}

void PeakMemory::sample() {
  while (running_) {
    peak_ = std::max(peak_, proportional_set_size());
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace tessera::test
