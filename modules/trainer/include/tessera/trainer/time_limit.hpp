// SPDX-License-Identifier: Apache-2.0
// When a run has to end, and whether it should go on: asked before each step by all ranks together.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/parameter.hpp"
#include "comm/communicator.hpp"
#include "tessera/trainer/stop_request.hpp"

namespace tessera::trainer {

/// Seconds from "90" or from a time as Slurm writes it: "1:30", "0:01:30", "0-00:01:30". Throws
/// Error::usage. local.
double parse_time_limit(const std::string& text);

struct TimeLimitOptions {
  /// From the start of the process [s]; nothing: what Slurm gives the job, if there is one.
  std::optional<double> limit_s;
  double margin_s = 30.0;  ///< kept free besides a step and a checkpoint
};

enum class StopReason { none, signal, time_limit };
/// "stopped by a signal". local.
const char* describe(StopReason reason);

/// Knows when the job ends, how long a step and a save take at most on this rank, and decides with
/// the other ranks.
class TimeLimit {
 public:
  /// Rank 0 asks Slurm. collective over world.
  TimeLimit(const comm::Communicator& world, const TimeLimitOptions& options);

  void took_step(double seconds);  ///< with what belongs to it, as an evaluation. local.
  void took_save(double seconds);  ///< local
  /// What counts until the first save has been measured, from how long it took to read `read_bytes`
  /// of all ranks. local.
  void expect_save(double load_s, std::int64_t read_bytes, const std::vector<Parameter>& written);

  /// Whether to stop now: a signal came to any rank, or the time does not suffice for another step
  /// and a checkpoint at the pace of the slowest rank so far. The same on all ranks. collective
  /// over world.
  StopReason reason_to_stop(const comm::Communicator& world, const StopRequest& stop);

  /// "the job ends in 42 s; a step takes up to 1.2 s, a checkpoint 3.4 s, 30 s are kept free", as
  /// reason_to_stop() saw it. local.
  std::string describe() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Agreed {
    double step_s, save_s, left_s;
  };
  void ask_slurm();
  bool should_ask_again() const;
  double left_s() const;
  double needed_s() const;

  TimeLimitOptions options_;
  std::optional<Clock::time_point> end_;  ///< on rank 0 alone
  Clock::time_point asked_;
  double step_s_ = 0.0, save_s_ = 0.0, expected_save_s_ = 0.0;
  Agreed agreed_{};  ///< of the slowest rank
};

}  // namespace tessera::trainer
