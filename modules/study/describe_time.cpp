// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>
#include <tessera/study/describe_time.hpp>

namespace tessera::study {
namespace {

constexpr double gib = 1024.0 * 1024.0 * 1024.0;

std::string phase_line(const char* name, const PhaseSeconds& phase, double step_s) {
  return fmt::format("{:<22} {:>10} {:>7.1f}%  {}\n", name, describe_seconds(phase.sum()),
                     100.0 * phase.sum() / step_s, phase.bound());
}

double tokens_per_second(const RunShape& shape, const StepTime& time) {
  return static_cast<double>(shape.batch * shape.length) / time.seconds();
}

}  // namespace

std::string describe_seconds(double seconds) {
  if (seconds >= 48.0 * 3600.0) return fmt::format("{:.1f} d", seconds / 86400.0);
  if (seconds >= 2.0 * 3600.0) return fmt::format("{:.1f} h", seconds / 3600.0);
  if (seconds >= 120.0) return fmt::format("{:.1f} min", seconds / 60.0);
  if (seconds >= 1.0) return fmt::format("{:.3g} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.3g} ms", 1e3 * seconds);
  return fmt::format("{:.3g} us", 1e6 * seconds);
}

std::string describe(const StepTime& time) {
  const double step_s = time.seconds();
  std::string text =
      fmt::format("{:<22} {:>10} {:>8}  {}\n", "phase", "time", "of step", "bound by");
  for (std::size_t i = 0; i < num_step_phases; ++i) {
    const PhaseSeconds& phase = time.phases[i];
    if (phase.sum() > 0.0) text += phase_line(to_string(static_cast<StepPhase>(i)), phase, step_s);
  }
  text += phase_line("step", time.sum(), step_s);
  const double hidden =
      time.communication_s > 0.0 ? 1.0 - time.waited_s / time.communication_s : 0.0;
  return text + fmt::format(
                    "{} tokens of a rank: {:.3g} tokens/s, {:.3g} TFLOP/s per rank; communication "
                    "{}, {:.0f} % of it hidden\n",
                    time.tokens, static_cast<double>(time.tokens) / step_s,
                    time.flops / step_s / 1e12, describe_seconds(time.communication_s),
                    100.0 * hidden);
}

std::string describe(const PlannedTraffic& traffic) {
  std::string text = fmt::format("{:<22} {:>12} {:>14} {:>12}\n", "GiB a step brings", "all-gather",
                                 "reduce-scatter", "all-to-all");
  const std::array<std::pair<const char*, const AxisTraffic*>, 3> axes{
      {{"world, dense units", &traffic.world},
       {"replica, experts", &traffic.replica},
       {"expert, rows", &traffic.expert}}};
  for (const auto& [name, axis] : axes) {
    if (axis->sum() == 0.0) continue;
    text += fmt::format("{:<22} {:>12.3f} {:>14.3f} {:>12.3f}\n", name, axis->all_gather / gib,
                        axis->reduce_scatter / gib, axis->all_to_all / gib);
  }
  return text;
}

std::string describe(const CheckpointInterval& interval) {
  return fmt::format(
      "a checkpoint of {:.1f} GiB takes {}; with a failure every {} save every {} (Daly; Young "
      "{}): "
      "{:.2g} % of the time is lost\n",
      interval.bytes / gib, describe_seconds(interval.save_s), describe_seconds(interval.mtbf_s),
      describe_seconds(interval.daly_s), describe_seconds(interval.young_s), 100.0 * interval.lost);
}

std::string describe(const std::vector<RankCountPlan>& plans) {
  std::string text =
      fmt::format("{:>8} {:>8} {:>8} {:>12} {:>11} {:>11} {:>11} {:>12}  {}\n", "ranks", "batch",
                  "expert", "rank", "step", "tokens/s", "efficiency", "TFLOP/s", "bound by");
  double first = 0.0;  // tokens per second and rank
  for (const RankCountPlan& plan : plans) {
    if (!plan.best) {
      text += fmt::format("{:>8} {:>8} no grid fits\n", plan.shape.num_ranks, plan.shape.batch);
      continue;
    }
    text += fmt::format("{:>8} {:>8} {:>8} {:>8.2f} GiB", plan.shape.num_ranks, plan.shape.batch,
                        plan.best->expert,
                        static_cast<double>(plan.best->memory.rank_bytes() + program_bytes) / gib);
    if (const auto& time = plan.best->time) {
      const double rate = tokens_per_second(plan.shape, *time);
      const double each = rate / static_cast<double>(plan.shape.num_ranks);
      if (first == 0.0) first = each;
      text += fmt::format(" {:>11} {:>11.4g} {:>10.1f}% {:>12.4g}  {}",
                          describe_seconds(time->seconds()), rate, 100.0 * each / first,
                          time->flops / time->seconds() / 1e12, time->sum().bound());
    }
    text += "\n";
  }
  return text +
         "TFLOP/s: per rank, of the model's products; efficiency: tokens per second and rank "
         "against the first line\n";
}

}  // namespace tessera::study
