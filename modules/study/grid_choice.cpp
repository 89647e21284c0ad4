// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/study/grid_choice.hpp>

#include "tessera/model/parameter_units.hpp"

namespace tessera::study {
namespace {

/// Bytes that a sum over, or a gather of, `elements` brings to one rank of a group.
double others_share(double elements, std::int64_t group_size, std::int64_t bytes) {
  return elements * static_cast<double>(bytes) * static_cast<double>(group_size - 1) /
         static_cast<double>(group_size);
}

}  // namespace

std::int64_t traffic_bytes(const model::ModelConfig& config, const RunShape& shape) {
  const std::int64_t element_bytes = shape.dtype == Dtype::f32 ? 4 : 2;
  const std::int64_t gradient_bytes = shape.transport == zero3::GradientTransport::f32 ? 4 : 2;
  const std::int64_t sequences = (shape.batch + shape.num_ranks - 1) / shape.num_ranks;
  const std::int64_t micro_steps =
      shape.micro_batch > 0 ? (sequences + shape.micro_batch - 1) / shape.micro_batch : 1;
  double once_a_pass = 0.0;
  for (const model::ParameterUnit& unit : model::parameter_units(config)) {
    double elements = 0.0;
    for (const Parameter& parameter : unit.parameters) {
      elements += static_cast<double>(parameter.size());
    }
    const bool is_layer = unit.name.starts_with("layers.");
    const std::int64_t group = unit.is_expert ? shape.num_ranks / shape.expert : shape.num_ranks;
    const double here = unit.is_expert ? elements / static_cast<double>(shape.expert) : elements;
    once_a_pass += others_share(here, group, (is_layer ? 2 : 1) * element_bytes + gradient_bytes);
  }
  const double rows = static_cast<double>(sequences * shape.length * config.router.options.top_k) *
                      static_cast<double>(std::count(config.layer_has_experts.begin(),
                                                     config.layer_has_experts.end(), true));
  const std::int64_t exchanges = shape.recompute == model::Recompute::layer ? 6 : 4;
  const double exchanged = others_share(rows * static_cast<double>(config.hidden_size),
                                        shape.expert, exchanges * element_bytes);
  return static_cast<std::int64_t>(once_a_pass * static_cast<double>(micro_steps) + exchanged);
}

std::vector<GridPlan> plan_grids(const model::ModelConfig& config, RunShape shape) {
  std::vector<GridPlan> grids;
  const std::int64_t most =
      std::min(shape.num_ranks, std::max<std::int64_t>(config.num_experts, 1));
  for (shape.expert = 1; shape.expert <= most; ++shape.expert) {
    if (shape.num_ranks % shape.expert != 0) continue;
    grids.push_back(
        {shape.expert, largest(plan_memory(config, shape)), traffic_bytes(config, shape)});
  }
  return grids;
}

std::optional<std::size_t> best_grid(const std::vector<GridPlan>& grids,
                                     std::optional<std::int64_t> limit_bytes) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < grids.size(); ++i) {
    if (limit_bytes && grids[i].memory.rank_bytes() + program_bytes > *limit_bytes) continue;
    if (!best || grids[i].traffic_bytes < grids[*best].traffic_bytes) best = i;
  }
  return best;
}

}  // namespace tessera::study
