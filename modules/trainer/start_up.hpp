// SPDX-License-Identifier: Apache-2.0
// Where the time goes from the start of the process to the first step.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace tessera::trainer {

/// Parts of the start, one after the other. All members are local.
class StartUp {
 public:
  /// What came before is the first part: `libraries`, from the start of the process.
  StartUp();
  /// Ends a part, which began where the one before ended.
  void end(const char* what);
  /// "1.52 s after the start of the process: 0.31 s libraries, ..."
  std::string describe() const;

 private:
  std::chrono::steady_clock::time_point last_;
  std::vector<std::pair<const char*, double>> parts_;  ///< in seconds
};

}  // namespace tessera::trainer
