// SPDX-License-Identifier: Apache-2.0
// How far a long piece of work is, on stderr: one line that is rewritten on a terminal, else a line
// of the log every few seconds. Nothing at all for work that is done within two seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace tessera {

/// Whether this process speaks for all (rank 0), and does so on a terminal. local.
bool logs_to_terminal();

/// "1.2 of 4.0 GiB (30 %), 2.1 GB/s, 1 s to go". local.
std::string describe_progress(std::int64_t done_bytes, std::int64_t total_bytes, double seconds);

/// Rank 0 shows its own share of the work as that of all ranks, which are about as far: nothing is
/// communicated. Made and asked on every rank. All members are local.
class ProgressBar {
 public:
  using Clock = std::chrono::steady_clock;

  /// `what`: "loading"; `own_bytes`: of rank 0; `total_bytes`: of all ranks.
  ProgressBar(std::string what, std::int64_t own_bytes, std::int64_t total_bytes,
              Clock::time_point start = Clock::now());
  ~ProgressBar();  ///< clears the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void add(std::int64_t bytes) { at(done_bytes_ + bytes); }
  /// So many of the own bytes are done.
  void at(std::int64_t done_bytes, Clock::time_point now = Clock::now());

 private:
  std::string what_;
  std::int64_t own_bytes_, total_bytes_, done_bytes_ = 0;
  bool is_terminal_, has_line_ = false;
  Clock::time_point start_, last_;
};

/// Seconds since the start of this process, or nothing where the system does not say it. local.
std::optional<double> process_seconds();

}  // namespace tessera
