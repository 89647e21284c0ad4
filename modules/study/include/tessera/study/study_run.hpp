// SPDX-License-Identifier: Apache-2.0
// Runs of a scaling study: the grids of a sweep, one after the other or by index.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/process_grid.hpp"
#include "tessera/study/grid_choice.hpp"
#include "tessera/study/study_result.hpp"

namespace tessera::study {

enum class Scaling { strong, weak };

/// What each point has in common, and the lists that are crossed.
struct Sweep {
  std::vector<std::int64_t> ranks;
  std::vector<std::int64_t> experts;  ///< that divide the ranks; others are left out
  Scaling scaling = Scaling::weak;
  /// strong: sequences of each step, dealt to all ranks; weak: of each rank.
  std::int64_t batch = 1;
  RunShape shape;              ///< length, dtype, recompute
  std::optional<double> zipf;  ///< 0: balanced; none: as the router has it
};

/// The points in the order of their indices. Throws Error::usage if there is none. local.
std::vector<RunShape> sweep_points(const model::ModelConfig& config, const Sweep& sweep);
/// "real", "balanced", "zipf:1.2". local.
std::string describe_routing(const std::optional<double>& zipf);
/// Throws Error::usage. local.
std::optional<double> parse_routing(const std::string& text);

struct StudyRunOptions {
  std::int64_t num_steps = 3;
  int num_repeats = 5;
  std::string config_json;
  std::optional<PlanMachine> machine;
};

/// Trains random weights on random tokens: `num_repeats` times `num_steps` steps, and beside it
/// what the machine file foretells with the experts as loaded as they were. collective over
/// grid.world().
StudyResult run_point(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                      const RunShape& shape, const Sweep& sweep, const StudyRunOptions& options);

}  // namespace tessera::study
