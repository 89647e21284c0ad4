// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/study/grid_choice.hpp>
#include <tessera/study/traffic.hpp>

#include "memory_of_units.hpp"

namespace tessera::study {
namespace {

bool is_better(const GridPlan& a, const GridPlan& b) {
  if (a.time && b.time) return a.time->seconds() < b.time->seconds();
  return a.traffic_bytes < b.traffic_bytes;
}

}  // namespace

std::vector<GridPlan> plan_grids(const model::ModelConfig& config, RunShape shape,
                                 const PlanMachine* machine) {
  const std::vector<model::ParameterUnit> units = model::parameter_units(config);
  const std::vector<model::ParameterUnit> chunks = model::in_vocabulary_chunks(config, units);
  std::vector<GridPlan> grids;
  const std::int64_t most =
      std::min(shape.num_ranks, std::max<std::int64_t>(config.num_experts, 1));
  for (shape.expert = 1; shape.expert <= most; ++shape.expert) {
    if (shape.num_ranks % shape.expert != 0) continue;
    GridPlan grid{shape.expert, largest(plan_memory(config, chunks, shape)),
                  planned_traffic(config, units, shape).sum(), std::nullopt};
    if (machine != nullptr) {
      grid.time = plan_time(config, units, shape, machine->machine, machine->algorithm);
    }
    grids.push_back(std::move(grid));
  }
  return grids;
}

std::optional<std::size_t> best_grid(const std::vector<GridPlan>& grids,
                                     std::optional<std::int64_t> limit_bytes) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < grids.size(); ++i) {
    if (limit_bytes && grids[i].memory.rank_bytes() + program_bytes > *limit_bytes) continue;
    if (!best || is_better(grids[i], grids[*best])) best = i;
  }
  return best;
}

}  // namespace tessera::study
