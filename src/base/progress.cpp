// SPDX-License-Identifier: Apache-2.0
#include "base/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/log.hpp"

namespace tessera {
namespace {

using namespace std::chrono_literals;

constexpr auto quiet_time = 2s;  ///< work that ends before is not worth a word
constexpr auto terminal_interval = 100ms;
constexpr auto log_interval = 5s;
constexpr const char* clear_line = "\r\033[K";

}  // namespace

std::string describe_progress(std::int64_t done_bytes, std::int64_t total_bytes, double seconds) {
  const double done = static_cast<double>(done_bytes), total = static_cast<double>(total_bytes);
  constexpr double gib = 1024.0 * 1024.0 * 1024.0;
  const double rate = seconds > 0.0 ? done / seconds : 0.0;
  std::string text =
      fmt::format("{:.1f} of {:.1f} GiB ({:.0f} %), {:.2f} GB/s", done / gib, total / gib,
                  total > 0.0 ? 100.0 * done / total : 100.0, rate / 1e9);
  if (rate > 0.0 && done < total) text += fmt::format(", {:.0f} s to go", (total - done) / rate);
  return text;
}

ProgressBar::ProgressBar(std::string what, std::int64_t own_bytes, std::int64_t total_bytes,
                         Clock::time_point start)
    : what_(std::move(what)),
      own_bytes_(std::max<std::int64_t>(own_bytes, 1)),
      total_bytes_(total_bytes),
      is_terminal_(logs_to_terminal()),
      start_(start),
      last_(start_) {}

ProgressBar::~ProgressBar() {
  if (has_line_) std::fputs(clear_line, stderr);
}

void ProgressBar::at(std::int64_t done_bytes, Clock::time_point now) {
  done_bytes_ = std::min(done_bytes, own_bytes_);
  if (now - start_ < quiet_time || now - last_ < (is_terminal_ ? terminal_interval : log_interval))
    return;
  last_ = now;
  const double share = static_cast<double>(done_bytes_) / static_cast<double>(own_bytes_);
  const std::string text =
      describe_progress(static_cast<std::int64_t>(share * static_cast<double>(total_bytes_)),
                        total_bytes_, std::chrono::duration<double>(now - start_).count());
  if (!is_terminal_) return log_info("{}: {}", what_, text);
  fmt::print(stderr, "{}{}: {}", clear_line, what_, text);
  std::fflush(stderr);
  has_line_ = true;
}

std::optional<double> process_seconds() {
  std::ifstream status("/proc/self/stat"), clock("/proc/uptime");
  std::string line, field;
  double up_s = 0.0, started_ticks = 0.0;
  if (!std::getline(status, line) || !(clock >> up_s)) return std::nullopt;
  // The name, in parentheses, may hold anything; the start is the 20th field after it.
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  for (int k = 0; k < 19; ++k) fields >> field;
  if (!(fields >> started_ticks)) return std::nullopt;
  return up_s - started_ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace tessera
