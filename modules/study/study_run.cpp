// SPDX-License-Identifier: Apache-2.0
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <tessera/study/simulation.hpp>
#include <tessera/study/study_run.hpp>
#include <tessera/trainer/random_steps.hpp>

#include "base/error.hpp"
#include "base/version.hpp"

namespace tessera::study {
namespace {

constexpr double mib = 1024.0 * 1024.0;

std::int64_t allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Each repeat's step; of the phases the mean over the repeats.
void add_measured(const std::vector<trainer::StepProfile>& profiles, StudyResult& result) {
  std::vector<double> sums(num_step_phases, 0.0);
  for (const trainer::StepProfile& profile : profiles) {
    result.step_s.push_back(1e-3 * profile.step_ms.max);
    for (const auto& row : profile.rows) {
      sums[static_cast<std::size_t>(row.phase)] += 1e-3 * row.ms.mean;
    }
  }
  for (std::size_t i = 0; i < num_step_phases; ++i) {
    if (sums[i] == 0.0) continue;
    result.phases.push_back(to_string(static_cast<StepPhase>(i)));
    result.phase_s.push_back(sums[i] / static_cast<double>(profiles.size()));
  }
  for (const auto& row : profiles.back().traffic) {
    result.communicators.push_back(row.communicator);
    result.logical_bytes.push_back(mib * row.logical_mib.mean);
    result.moved_bytes.push_back(mib * row.moved_mib.mean);
  }
  result.expert_choices = profiles.back().expert_choices;
}

void add_planned(const model::ModelConfig& config, const PlanMachine& machine,
                 StudyResult& result) {
  RunShape shape = result.shape;
  const Routing routing = result.expert_choices.empty()
                              ? Routing::balanced(config)
                              : Routing::counted(config, result.expert_choices);
  shape.imbalance = std::max(1.0, routing.busiest_rank(shape.expert));
  const StepTime time = plan_time(config, shape, machine.machine, machine.algorithm);
  result.planned_s = time.seconds();
  for (const std::string& name : result.phases) {
    for (std::size_t i = 0; i < num_step_phases; ++i) {
      if (to_string(static_cast<StepPhase>(i)) == name) {
        result.planned_phase_s.push_back(time.phases[i].sum());
      }
    }
  }
  shape.imbalance = 1.0;
  result.simulated_s =
      simulate_step(config, shape, machine.machine, routing, {machine.algorithm, {}}).seconds;
}

}  // namespace

std::string describe_routing(const std::optional<double>& zipf) {
  if (!zipf) return "real";
  return *zipf == 0.0 ? "balanced" : fmt::format("zipf:{}", *zipf);
}

std::optional<double> parse_routing(const std::string& text) {
  if (text == "real") return std::nullopt;
  if (text == "balanced") return 0.0;
  if (text.starts_with("zipf:")) {
    const std::string number = text.substr(5);
    char* end = nullptr;
    const double exponent = std::strtod(number.c_str(), &end);
    if (!number.empty() && *end == '\0' && exponent >= 0.0 && exponent <= 10.0) return exponent;
  }
  fail(ErrorKind::usage, "routing '{}' is unknown; use real, balanced or zipf:EXPONENT (0 to 10)",
       text);
}

std::vector<RunShape> sweep_points(const model::ModelConfig& config, const Sweep& sweep) {
  std::vector<RunShape> points;
  for (const std::int64_t ranks : sweep.ranks) {
    for (const std::int64_t expert : sweep.experts) {
      if (ranks % expert != 0 || expert > std::max<std::int64_t>(config.num_experts, 1)) continue;
      RunShape shape = sweep.shape;
      shape.num_ranks = ranks, shape.expert = expert;
      shape.batch = sweep.scaling == Scaling::weak ? sweep.batch * ranks : sweep.batch;
      if (shape.batch < ranks) {
        fail(ErrorKind::usage, "{} sequences do not reach for {} ranks; each needs one",
             shape.batch, ranks);
      }
      points.push_back(shape);
    }
  }
  if (points.empty()) {
    fail(ErrorKind::usage, "the sweep has no grid: no --expert divides any of --ranks");
  }
  return points;
}

StudyResult run_point(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                      const RunShape& shape, const Sweep& sweep, const StudyRunOptions& options) {
  StudyResult result;
  result.program = version_string(), result.dependencies = dependency_versions();
  result.modules = environment("LOADEDMODULES");
  result.nodes = grid.describe();
  result.config_json = options.config_json;
  result.cpus_of_ranks = grid.world().all_gather_value("processors of each rank", allowed_cpus());
  result.series = sweep.scaling == Scaling::weak ? "weak" : "strong";
  result.routing = describe_routing(sweep.zipf);
  result.shape = shape;
  result.shape.ranks_per_node = grid.node().size();
  trainer::RandomSteps steps;
  steps.dtype = shape.dtype, steps.recompute = shape.recompute;
  steps.batch = shape.batch, steps.length = shape.length;
  steps.num_steps = options.num_steps, steps.zipf = sweep.zipf;
  std::vector<trainer::StepProfile> profiles;
  for (int i = 0; i < options.num_repeats; ++i) {
    profiles.push_back(profile_random_steps(grid, config, steps));
  }
  add_measured(profiles, result);
  if (options.machine) {
    result.machine_json = to_json(options.machine->machine);
    result.shape.shares_memory = options.machine->machine.shares_memory;
    add_planned(config, *options.machine, result);
  }
  return result;
}

}  // namespace tessera::study
