// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/time_limit.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/progress.hpp"
#include "slurm_job.hpp"

namespace tessera::trainer {

double parse_time_limit(const std::string& text) {
  if (const auto seconds = parse_duration(text); seconds && *seconds > 0.0) return *seconds;
  fail(ErrorKind::usage, "--time-limit {} is no time; give seconds, or [D-]HH:MM:SS", text);
}

const char* describe(StopReason reason) {
  switch (reason) {
    case StopReason::none: return "not stopped";
    case StopReason::signal: return "stopped by a signal";
    case StopReason::time_limit: return "stopped before the time limit";
  }
  return "";
}

TimeLimit::TimeLimit(const comm::Communicator& world, const TimeLimitOptions& options)
    : options_(options) {
  if (world.rank() != 0) return;
  if (options_.limit_s) {
    end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
                              *options_.limit_s - process_seconds().value_or(0.0)));
  } else {
    ask_slurm();
  }
  if (end_) log_info("time limit: {:.0f} s are left", left_s());
}

void TimeLimit::ask_slurm() {
  asked_ = Clock::now();
  if (const auto left = slurm_time_left_s()) {
    end_ =
        asked_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*left));
  }
}

double TimeLimit::left_s() const {
  return end_ ? std::chrono::duration<double>(*end_ - Clock::now()).count()
              : std::numeric_limits<double>::infinity();
}

void TimeLimit::took_step(double seconds) { step_s_ = std::max(step_s_, seconds); }
void TimeLimit::took_save(double seconds) { save_s_ = std::max(save_s_, seconds); }

// Written are weights and two moments in f32, and at half the pace of reading, say.
void TimeLimit::expect_save(double load_s, std::int64_t read_bytes,
                            const std::vector<Parameter>& written) {
  constexpr double bytes_each = 12.0, slower = 2.0;
  double num_weights = 0.0;
  for (const Parameter& parameter : written) num_weights += static_cast<double>(parameter.size());
  expected_save_s_ = slower * load_s * bytes_each * num_weights /
                     static_cast<double>(std::max<std::int64_t>(read_bytes, 1));
}

double TimeLimit::needed_s() const { return agreed_.step_s + agreed_.save_s + options_.margin_s; }

/// The limit of a running job may be changed: it is looked up again now and then, and at the last
/// moment.
bool TimeLimit::should_ask_again() const {
  if (!end_ || options_.limit_s) return false;
  const std::chrono::seconds patience{left_s() < needed_s() ? 10 : 300};
  return Clock::now() - asked_ > patience;
}

StopReason TimeLimit::reason_to_stop(const comm::Communicator& world, const StopRequest& stop) {
  if (should_ask_again()) ask_slurm();
  std::array<double, 4> values{stop.asked() ? 1.0 : 0.0, step_s_,
                               save_s_ > 0.0 ? save_s_ : expected_save_s_, -left_s()};
  world.all_reduce("time to stop", std::span<double>(values), comm::ReduceOp::max);
  agreed_ = {values[1], values[2], -values[3]};
  if (values[0] > 0.0) return StopReason::signal;
  return agreed_.left_s < needed_s() ? StopReason::time_limit : StopReason::none;
}

std::string TimeLimit::describe() const {
  return fmt::format(
      "the job ends in {:.1f} s; a step takes up to {:.1f} s, a checkpoint {:.1f} s, and {:.1f} s "
      "are kept free",
      agreed_.left_s, agreed_.step_s, agreed_.save_s, options_.margin_s);
}

}  // namespace tessera::trainer
