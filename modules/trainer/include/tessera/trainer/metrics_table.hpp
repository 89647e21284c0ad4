// SPDX-License-Identifier: Apache-2.0
// The progress of a training run as a table for people.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "tessera/trainer/metrics.hpp"

namespace tessera::trainer {

/// Prints a header and one line per `every` steps (and for the first and the last step, for
/// evaluations and for dropped steps) to `out`. Plain
/// text: under mpirun every program believes that it writes to a terminal. For rank 0. local.
class MetricsTable {
 public:
  MetricsTable(std::FILE* out, std::int64_t every, std::int64_t last_step);

  /// To be called for each step, so that the time left is known.
  void add(const StepMetrics& metrics);

 private:
  void print_header();

  std::FILE* out_;
  std::int64_t every_;
  std::int64_t last_step_;
  std::int64_t num_added_ = 0;
  double mean_step_s_ = 0.0;
};

/// "2 h 05 min", "3 min 20 s", "12 s". local.
std::string format_duration(double seconds);

}  // namespace tessera::trainer
