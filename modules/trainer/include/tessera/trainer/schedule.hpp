// SPDX-License-Identifier: Apache-2.0
// The learning rate as a function of the step.
#pragma once

#include <cstdint>
#include <string>

namespace tessera::trainer {

enum class ScheduleKind { constant, linear, cosine };

/// "constant", "linear" or "cosine"; throws Error::usage for any other name. local.
ScheduleKind parse_schedule(const std::string& name);

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 1e-3;            ///< highest learning rate
  std::int64_t total_steps = 1;  ///< of the whole training, whatever this run's length
  std::int64_t num_warmup_steps = 0;
  double min_fraction = 0.0;  ///< of the peak, where linear and cosine end
};

/// Steps count from 0. Warm-up of w steps: peak (t + 1) / (w + 1), so that no step is lost at rate
/// 0 and step w is the first at the peak. Then, with x = (t - w) / (total - w), min = fraction *
/// peak: linear peak + (min - peak) x, cosine min + (peak - min) (1 + cos(pi x)) / 2
/// (arXiv:1608.03983, eq. 5). From total_steps on the rate stays at min (constant: at peak).
class Schedule {
 public:
  /// Throws Error::usage: a rate or count below 0, a fraction outside [0, 1], more warm-up than
  /// steps.
  explicit Schedule(const ScheduleOptions& options);

  double learning_rate(std::int64_t step) const;

 private:
  ScheduleOptions options_;
};

}  // namespace tessera::trainer
