// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.hpp"

namespace tessera::trainer {

ScheduleKind parse_schedule(const std::string& name) {
  if (name == "constant") return ScheduleKind::constant;
  if (name == "linear") return ScheduleKind::linear;
  if (name == "cosine") return ScheduleKind::cosine;
  fail(ErrorKind::usage, "learning-rate schedule '{}' is not known; use constant, linear or cosine",
       name);
}

Schedule::Schedule(const ScheduleOptions& options) : options_(options) {
  if (!(options.peak >= 0.0) || !std::isfinite(options.peak)) {
    fail(ErrorKind::usage, "learning rate {} is no number of 0 or more", options.peak);
  }
  if (!(options.min_fraction >= 0.0 && options.min_fraction <= 1.0)) {
    fail(ErrorKind::usage, "the lowest learning rate is {} of the peak; use 0 to 1",
         options.min_fraction);
  }
  if (options.total_steps < 0 || options.num_warmup_steps < 0 ||
      options.num_warmup_steps > options.total_steps) {
    fail(ErrorKind::usage, "{} warm-up steps do not fit into a schedule of {} steps",
         options.num_warmup_steps, options.total_steps);
  }
}

double Schedule::learning_rate(std::int64_t step) const {
  const double peak = options_.peak;
  const std::int64_t warmup = options_.num_warmup_steps;
  if (step < warmup) {
    return peak * static_cast<double>(std::max<std::int64_t>(step, 0) + 1) /
           static_cast<double>(warmup + 1);
  }
  if (options_.kind == ScheduleKind::constant) return peak;
  const double minimum = options_.min_fraction * peak;
  if (step >= options_.total_steps) return minimum;
  const double x =
      static_cast<double>(step - warmup) / static_cast<double>(options_.total_steps - warmup);
  if (options_.kind == ScheduleKind::linear) return peak + (minimum - peak) * x;
  return minimum + (peak - minimum) * 0.5 * (1.0 + std::cos(std::numbers::pi * x));
}

}  // namespace tessera::trainer
