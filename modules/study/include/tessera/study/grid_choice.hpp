// SPDX-License-Identifier: Apache-2.0
// All grids of a number of ranks side by side, and which one to take.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tessera/study/memory_plan.hpp"

namespace tessera::study {

struct GridPlan {
  std::int64_t expert = 1;
  MemoryPlan memory;               ///< of the rank that needs most
  std::int64_t traffic_bytes = 0;  ///< that a step brings to that rank: units, gradients, rows
};

/// What a step brings to one rank [bytes]: all-gathers (each layer's units twice, the others once;
/// the experts' twice), reduce-scatters and the four exchanges of rows, logically, wherever the
/// ranks are. The formulas are those of tests/trainer/traffic.test.cpp. local.
std::int64_t traffic_bytes(const model::ModelConfig& config, const RunShape& shape);

/// For each expert axis that divides both the ranks and, as far as it can, the experts. `shape` but
/// for shape.expert. local.
std::vector<GridPlan> plan_grids(const model::ModelConfig& config, RunShape shape);

/// The index of the grid with the least traffic of those whose ranks need at most `limit_bytes`,
/// the program included; with no limit of all. Empty: none fits. local.
std::optional<std::size_t> best_grid(const std::vector<GridPlan>& grids,
                                     std::optional<std::int64_t> limit_bytes);

}  // namespace tessera::study
