// SPDX-License-Identifier: Apache-2.0
// All grids of a number of ranks side by side, and which one to take.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tessera/study/memory_plan.hpp"
#include "tessera/study/step_time.hpp"

namespace tessera::study {

struct GridPlan {
  std::int64_t expert = 1;
  MemoryPlan memory;             ///< of the rank that needs most
  double traffic_bytes = 0.0;    ///< that a step brings to that rank: units, gradients, rows
  std::optional<StepTime> time;  ///< where a machine is known
};

/// On which a plan's times are.
struct PlanMachine {
  Machine machine;
  Algorithm algorithm = Algorithm::hierarchical;
};

/// For each expert axis that divides both the ranks and, as far as it can, the experts. `shape` but
/// for shape.expert. `machine`: null, or for the time of each. local.
std::vector<GridPlan> plan_grids(const model::ModelConfig& config, RunShape shape,
                                 const PlanMachine* machine = nullptr);

/// The index of the quickest grid (without a machine: the one with the least traffic) of those
/// whose ranks need at most `limit_bytes`, the program included; with no limit of all. Empty: none
/// fits. local.
std::optional<std::size_t> best_grid(const std::vector<GridPlan>& grids,
                                     std::optional<std::int64_t> limit_bytes);

}  // namespace tessera::study
