// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>
#include <tessera/trainer/run_plan.hpp>

#include "unit_parts.hpp"

namespace tessera::trainer {
namespace {

constexpr std::size_t max_rows = 16;

/// What this rank would read of one unit; nothing is.
std::int64_t planned_reads(const comm::ProcessGrid& grid, const ModelSource& model,
                           const UnitParts& stored, std::int64_t shard_size) {
  checkpoint::LoadOptions options;
  options.plan_only = true;
  return model.source
      ->load(grid, stored.parameters, stored.slices,
             {static_cast<float*>(nullptr), static_cast<std::size_t>(shard_size)}, options)
      .planned_bytes;
}

RankPlan plan_rank(const comm::ProcessGrid& grid, ModelSource& model) {
  RankPlan plan;
  const std::vector<zero3::UnitSpec> specs = place_units(
      grid, model.config, in_vocabulary_chunks(model.config, parameter_units(model.config)));
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const zero3::UnitSpec& unit = specs[i];
    const comm::Communicator& group = unit.placement.group();
    const zero3::FlatLayout layout(unit.parameters, unit.placement.experts(), group.size(),
                                   unit.rows);
    const std::vector<Slice> slices = layout.slices(unit.parameters, group.rank());
    plan.read_bytes += planned_reads(grid, model, stored_parts(model, i, unit.parameters, slices),
                                     layout.shard_size());
    for (const Slice& slice : slices) plan.num_parameters += slice.size();
  }
  return plan;
}

std::string row(const std::string& name, const RankPlan& plan) {
  return fmt::format("{:>8} {:>14} {:>12.1f}\n", name, plan.num_parameters,
                     static_cast<double>(plan.read_bytes) / (1 << 20));
}

}  // namespace

std::vector<RankPlan> plan_run(const comm::ProcessGrid& grid, ModelSource& model) {
  const RankPlan mine = plan_rank(grid, model);
  const std::array<std::int64_t, 2> numbers{mine.num_parameters, mine.read_bytes};
  std::vector<std::int64_t> all(numbers.size() * static_cast<std::size_t>(grid.world().size()));
  grid.world().all_gather("run plans", std::span<const std::int64_t>(numbers), std::span(all));
  std::vector<RankPlan> plans;
  for (auto n = all.begin(); n != all.end(); n += std::ssize(numbers)) {
    plans.push_back({n[0], n[1]});
  }
  return plans;
}

std::string describe(const std::vector<RankPlan>& plans) {
  std::string text = fmt::format("{:>8} {:>14} {:>12}\n", "rank", "parameters", "reads [MiB]");
  RankPlan sum;
  for (std::size_t rank = 0; rank < plans.size(); ++rank) {
    if (rank < max_rows) text += row(std::to_string(rank), plans[rank]);
    sum.num_parameters += plans[rank].num_parameters;
    sum.read_bytes += plans[rank].read_bytes;
  }
  if (plans.size() > max_rows) {
    text += fmt::format("{:>8} ({} more)\n", "...", plans.size() - max_rows);
  }
  return text + row("sum", sum);
}

}  // namespace tessera::trainer
