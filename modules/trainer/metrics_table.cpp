// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/metrics_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tessera::trainer {

std::string format_duration(double seconds) {
  if (!(seconds >= 0.0) || seconds > 1e9) return "?";
  const auto total = static_cast<long long>(std::llround(seconds));
  const long long hours = total / 3600, minutes = total / 60 % 60;
  if (hours > 0) return fmt::format("{} h {:02} min", hours, minutes);
  if (minutes > 0) return fmt::format("{} min {:02} s", minutes, total % 60);
  return fmt::format("{} s", total);
}

MetricsTable::MetricsTable(std::FILE* out, std::int64_t every, std::int64_t last_step)
    : out_(out), every_(std::max<std::int64_t>(every, 1)), last_step_(last_step) {}

void MetricsTable::print_header() {
  fmt::print(out_, "{:>8} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9} {:>13}\n", "step", "loss",
             "grad norm", "lr", "tokens/s", "load", "peak MiB", "left");
}

void MetricsTable::add(const StepMetrics& metrics) {
  // A running mean over about twenty steps follows a changing speed and still smooths single
  // outliers.
  ++num_added_;
  const double weight = std::max(1.0 / static_cast<double>(num_added_), 0.05);
  mean_step_s_ += weight * (metrics.step_s - mean_step_s_);
  const bool noteworthy = metrics.dropped || metrics.eval_loss.has_value();
  const bool due = num_added_ == 1 || metrics.step % every_ == 0 || metrics.step == last_step_;
  if (!due && !noteworthy) return;
  if (num_added_ == 1) print_header();
  const auto num_left = static_cast<double>(std::max<std::int64_t>(last_step_ - metrics.step, 0));
  fmt::print(out_, "{:>8} {:>10.5f} {:>10.4g} {:>10.3e} {:>10.0f} {:>9.2f} {:>9.0f} {:>13}",
             metrics.step, metrics.loss, metrics.grad_norm, metrics.learning_rate,
             metrics.tokens_per_s, metrics.expert_load, metrics.peak_rss_mib,
             format_duration(mean_step_s_ * num_left));
  if (metrics.eval_loss) fmt::print(out_, "  evaluation loss {:.5f}", *metrics.eval_loss);
  if (metrics.dropped) fmt::print(out_, "  step dropped");
  fmt::print(out_, "\n");
  std::fflush(out_);
}

}  // namespace tessera::trainer
