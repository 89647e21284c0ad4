// SPDX-License-Identifier: Apache-2.0
// How much memory a process has taken at most while something ran.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace tessera::test {

/// Samples the proportional set size of this process from its construction on.
class PeakMemory {
 public:
  PeakMemory();
  ~PeakMemory();
  /// Ends the sampling; the most that was seen above the size at the beginning [bytes].
  std::int64_t stop();

 private:
  void sample();

  std::int64_t baseline_;
  std::int64_t peak_ = 0;
  std::atomic<bool> running_ = true;
  std::thread thread_;
};

}  // namespace tessera::test
