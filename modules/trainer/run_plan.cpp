// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <tessera/model/activation_memory.hpp>
#include <tessera/trainer/run_plan.hpp>

#include "base/block_distribution.hpp"
#include "tessera/trainer/token_data.hpp"
#include "unit_parts.hpp"

namespace tessera::trainer {
namespace {

constexpr std::int64_t f32_bytes = 4;
constexpr std::size_t max_rows = 16;

/// What a unit takes where it is whole.
struct UnitBytes {
  std::int64_t weights = 0;   ///< gathered, in the type of the arithmetic
  std::int64_t gradient = 0;  ///< whole and f32; 0 where the shard is the whole unit
};

UnitBytes whole_unit(const zero3::UnitSpec& unit, const zero3::FlatLayout& layout,
                     std::int64_t element_bytes) {
  const bool is_whole = unit.placement.group().size() == 1;
  return {is_whole && element_bytes == f32_bytes ? 0 : layout.flat_size() * element_bytes,
          is_whole ? 0 : layout.flat_size() * f32_bytes};
}

/// Backward holds two layers' weights (the next one is on its way), the gradients of one and one
/// more that is being reduced; a tied embedding's gradient lives from the head to the end.
std::int64_t most_gathered(const std::vector<UnitBytes>& units, const model::UnitIndex& index,
                           const model::ModelConfig& config) {
  const auto layer_sum = [&](std::int64_t layer) {
    UnitBytes sum = units[index.dense(layer)];
    if (config.layer_has_experts[static_cast<std::size_t>(layer)]) {
      sum.weights += units[index.expert(layer)].weights;
      sum.gradient += units[index.expert(layer)].gradient;
    }
    return sum;
  };
  const UnitBytes head = units[index.head()], embedding = units[model::UnitIndex::embedding];
  const UnitBytes tied = config.tied_embeddings ? embedding : UnitBytes{};
  std::int64_t most =
      head.weights + head.gradient + tied.weights + layer_sum(config.num_layers - 1).weights;
  UnitBytes above = head;
  for (std::int64_t layer = config.num_layers - 1; layer >= 0; --layer) {
    const UnitBytes here = layer_sum(layer);
    const std::int64_t next = layer > 0 ? layer_sum(layer - 1).weights : 0;
    most = std::max(most, here.weights + next + here.gradient + above.gradient);
    above = here;
  }
  return most + tied.gradient;
}

std::int64_t planned_activations(const comm::ProcessGrid& grid, const ModelSource& model,
                                 const TrainingOptions& options, std::int64_t element_bytes) {
  if (options.data.empty()) return 0;
  TokenDataOptions data_options = options.data_options;
  data_options.vocab_size = model.config.vocab_size;
  const TokenData data = TokenData::open(grid.world(), options.data, data_options);
  const BlockDistribution rows{options.batch, grid.world().size()};
  const std::int64_t mine = rows.count(grid.world().rank());
  const std::int64_t sequences =
      options.micro_batch > 0 ? std::min(options.micro_batch, mine) : mine;
  return model::activation_bytes(model.config, sequences, data.sequence_length(), element_bytes);
}

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

RankPlan plan_rank(const comm::ProcessGrid& grid, ModelSource& model,
                   const TrainingOptions& options) {
  const std::vector<zero3::UnitSpec> specs =
      place_units(grid, model.config, parameter_units(model.config));
  const bool has_moments = options.optimizer.kind == zero3::OptimizerKind::adamw;
  const std::int64_t element_bytes = options.dtype == Dtype::f32 ? f32_bytes : 2;
  RankPlan plan;
  std::vector<UnitBytes> units;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const zero3::UnitSpec& unit = specs[i];
    const comm::Communicator& group = unit.placement.group();
    const zero3::FlatLayout layout(unit.parameters, unit.placement.experts(), group.size());
    const std::vector<Slice> slices = layout.slices(unit.parameters, group.rank());
    plan.read_bytes += planned_reads(grid, model, stored_parts(model, i, unit.parameters, slices),
                                     layout.shard_size());
    for (const Slice& slice : slices) {
      plan.num_parameters += slice.size();
      if (model.origin(*slice.parameter).mxfp4) {
        plan.state_bytes += slice.size() / checkpoint::mxfp4_block_elements;
      }
    }
    plan.state_bytes += layout.shard_size() * f32_bytes * (has_moments ? 4 : 2);
    units.push_back(whole_unit(unit, layout, element_bytes));
  }
  plan.gathered_bytes = most_gathered(units, model::UnitIndex(model.config), model.config);
  plan.activation_bytes = planned_activations(grid, model, options, element_bytes);
  return plan;
}

std::string gib(std::int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return value < 1024.0 * 1024.0 * 1024.0 ? fmt::format("{:.1f} MiB", value / (1 << 20))
                                          : fmt::format("{:.2f} GiB", value / (1 << 30));
}

std::string row(const std::string& name, const RankPlan& plan) {
  return fmt::format("{:>8} {:>14} {:>12} {:>12} {:>12} {:>12} {:>12}\n", name, plan.num_parameters,
                     gib(plan.read_bytes), gib(plan.state_bytes), gib(plan.gathered_bytes),
                     gib(plan.activation_bytes), gib(plan.memory_bytes()));
}

}  // namespace

std::vector<RankPlan> plan_run(const comm::ProcessGrid& grid, ModelSource& model,
                               const TrainingOptions& options) {
  const RankPlan mine = plan_rank(grid, model, options);
  const std::array<std::int64_t, 5> numbers{mine.num_parameters, mine.read_bytes, mine.state_bytes,
                                            mine.gathered_bytes, mine.activation_bytes};
  std::vector<std::int64_t> all(numbers.size() * static_cast<std::size_t>(grid.world().size()));
  grid.world().all_gather("run plans", std::span<const std::int64_t>(numbers), std::span(all));
  std::vector<RankPlan> plans;
  for (auto n = all.begin(); n != all.end(); n += std::ssize(numbers)) {
    plans.push_back({n[0], n[1], n[2], n[3], n[4]});
  }
  return plans;
}

std::string describe(const std::vector<RankPlan>& plans) {
  std::string text =
      fmt::format("{:>8} {:>14} {:>12} {:>12} {:>12} {:>12} {:>12}\n", "rank", "parameters",
                  "reads", "states", "gathered", "activations", "memory");
  RankPlan sum, largest;
  for (std::size_t rank = 0; rank < plans.size(); ++rank) {
    const RankPlan& plan = plans[rank];
    if (rank < max_rows) text += row(std::to_string(rank), plan);
    sum.num_parameters += plan.num_parameters;
    sum.read_bytes += plan.read_bytes;
    sum.state_bytes += plan.state_bytes;
    sum.gathered_bytes += plan.gathered_bytes;
    sum.activation_bytes += plan.activation_bytes;
    if (plan.memory_bytes() > largest.memory_bytes()) largest = plan;
  }
  if (plans.size() > max_rows) {
    text +=
        fmt::format("{:>8} ({} more)\n", "...", plans.size() - max_rows) + row("largest", largest);
  }
  return text + row("sum", sum);
}

}  // namespace tessera::trainer
