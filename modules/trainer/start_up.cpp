// SPDX-License-Identifier: Apache-2.0
#include "start_up.hpp"

#include <fmt/format.h>

#include "base/progress.hpp"

namespace tessera::trainer {

StartUp::StartUp() : last_(std::chrono::steady_clock::now()) {
  parts_.emplace_back("libraries", process_seconds().value_or(0.0));
}

void StartUp::end(const char* what) {
  const auto now = std::chrono::steady_clock::now();
  parts_.emplace_back(what, std::chrono::duration<double>(now - last_).count());
  last_ = now;
}

std::string StartUp::describe() const {
  double sum = 0.0;
  std::string list;
  for (const auto& [what, seconds] : parts_) {
    sum += seconds;
    list += fmt::format("{}{:.2f} s {}", list.empty() ? "" : ", ", seconds, what);
  }
  return fmt::format("{:.2f} s after the start of the process: {}", sum, list);
}

}  // namespace tessera::trainer
