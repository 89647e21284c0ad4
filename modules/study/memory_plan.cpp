// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <compare>
#include <map>
#include <numeric>
#include <tessera/study/memory_plan.hpp>

#include "base/block_distribution.hpp"
#include "base/error.hpp"
#include "kernel/gemm.hpp"
#include "memory_of_units.hpp"
#include "symbolic_step.hpp"
#include "tessera/study/traffic.hpp"
#include "tessera/zero3/flat_layout.hpp"

namespace tessera::study {
namespace {

/// What makes a rank's memory differ from another's.
struct RankClass {
  std::int64_t num_experts = 0;
  std::int64_t num_sequences = 0;
  auto operator<=>(const RankClass&) const = default;
};

RankClass class_of(const model::ModelConfig& config, const RunShape& shape, std::int64_t rank) {
  const BlockDistribution sequences{shape.batch, shape.num_ranks};
  const BlockDistribution experts{config.num_experts, shape.expert};
  return {experts.count(rank % shape.expert), sequences.count(rank)};
}

/// Ranks in [begin, end) whose expert rank is below `limit`.
std::int64_t count_below(std::int64_t begin, std::int64_t end, std::int64_t expert,
                         std::int64_t limit) {
  const auto up_to = [&](std::int64_t rank) {
    return rank / expert * limit + std::min(rank % expert, limit);
  };
  return up_to(end) - up_to(begin);
}

/// How many ranks of each class there are, and the first. A rank has one more sequence than the
/// last if it is among the first in the world, and one more expert if it is among the first of its
/// axis.
std::map<RankClass, MemoryPlan> rank_classes(const model::ModelConfig& config,
                                             const RunShape& shape) {
  std::map<RankClass, MemoryPlan> plans;
  const std::int64_t longer = shape.batch % shape.num_ranks;
  const std::int64_t fuller = config.num_experts % shape.expert;
  const auto add = [&](std::int64_t first, std::int64_t count) {
    if (count == 0) return;
    MemoryPlan& plan = plans[class_of(config, shape, first)];
    if (plan.num_ranks == 0) plan.first_rank = first;
    plan.num_ranks += count;
  };
  for (const auto& [begin, end] : {std::pair{std::int64_t{0}, longer}, {longer, shape.num_ranks}}) {
    const std::int64_t full = count_below(begin, end, shape.expert, fuller);
    const std::int64_t place = begin % shape.expert, group = begin - place;
    add(place < fuller ? begin : group + shape.expert, full);
    add(place < fuller ? group + fuller : begin, end - begin - full);
  }
  return plans;
}

/// Whether NodeGroup::make() finds a group of each node's ranks, and how many it has: the group's
/// ranks are `stride` apart.
std::int64_t node_size(const RunShape& shape, std::int64_t group_size, std::int64_t stride) {
  const std::int64_t on_node = shape.ranks_per_node / stride;
  const bool is_regular = shape.ranks_per_node % stride == 0 && on_node > 1 &&
                          (on_node >= group_size || group_size % on_node == 0);
  return shape.shares_memory && is_regular ? std::min(on_node, group_size) : 1;
}

std::vector<SymbolicUnit> symbolic_units(const std::vector<model::ParameterUnit>& units,
                                         const RunShape& shape, const RankClass& rank) {
  std::vector<SymbolicUnit> result;
  for (const model::ParameterUnit& unit : units) {
    SymbolicUnit made;
    made.is_expert = unit.is_expert;
    const std::int64_t stride = unit.is_expert ? shape.expert : 1;
    made.group_size = shape.num_ranks / stride;
    made.node_size = node_size(shape, made.group_size, stride);
    const zero3::FlatLayout layout(unit.parameters, {0, unit.is_expert ? rank.num_experts : 0},
                                   static_cast<int>(made.group_size), unit.rows);
    made.flat_size = layout.flat_size();
    made.shard_size = layout.shard_size();
    result.push_back(made);
  }
  return result;
}

/// Of one micro-step. Experts are chosen equally often, but for the imbalance that is asked for.
LayerSizes layer_sizes(const model::ModelConfig& config, const RunShape& shape,
                       const RankClass& rank) {
  LayerSizes sizes;
  const std::int64_t sequences =
      shape.micro_batch > 0 ? std::min(shape.micro_batch, rank.num_sequences) : rank.num_sequences;
  sizes.num_tokens = sequences * shape.length;
  sizes.element_bytes = element_bytes(shape);
  sizes.length = shape.length;
  sizes.axis_size = shape.expert;
  sizes.axis_shares_memory =
      shape.shares_memory && shape.expert > 1 && shape.ranks_per_node % shape.expert == 0;
  if (config.num_experts == 0) return sizes;
  sizes.num_sent = sizes.num_tokens * config.router.options.top_k;
  const double mean =
      static_cast<double>(sizes.num_sent * shape.expert) / static_cast<double>(config.num_experts);
  const double busiest =
      std::min(mean * shape.imbalance, static_cast<double>(sizes.num_tokens * shape.expert));
  sizes.most_rows = static_cast<std::int64_t>(std::ceil(busiest));
  sizes.num_received =
      shape.expert == 1
          ? sizes.num_sent
          : static_cast<std::int64_t>(std::ceil(busiest * static_cast<double>(rank.num_experts)));
  if (kernel::groups_are_faster) sizes.most_rows = sizes.num_received;  // all experts at a time
  return sizes;
}

/// What lies there for good.
void add_states(const std::vector<SymbolicUnit>& units, const RunShape& shape, MemoryPlan& plan) {
  const auto add = [&](MemoryKind kind, std::int64_t bytes) {
    plan.bytes[static_cast<std::size_t>(kind)] += bytes;
  };
  const bool is_f32 = shape.dtype == Dtype::f32;
  for (const SymbolicUnit& unit : units) {
    const std::int64_t shard_bytes = unit.shard_size * f32_bytes;
    plan.num_parameters += unit.shard_size;
    if (unit.lies_on_node()) {
      plan.node.parameters +=
          unit.flat_size * element_bytes(shape) * (unit.is_expert ? shape.expert : 1);
    } else if (unit.group_size == 1 && !is_f32) {
      add(MemoryKind::working_parameters, unit.flat_size * element_bytes(shape));
    }
    // In f32 the masters themselves are what lies on the node.
    if (!unit.lies_on_node() || !is_f32) add(MemoryKind::parameters, shard_bytes);
    add(MemoryKind::gradients, shard_bytes);
    if (shape.optimizer == zero3::OptimizerKind::adamw) add(MemoryKind::optimizer, 2 * shard_bytes);
  }
}

/// oneDNN's packed operands and generated code, as measured with 2.6.3; bf16 products are packed in
/// buffers of 3 MiB (kernel/gemm_packed.cpp).
std::int64_t products_bytes(const RunShape& shape) {
  return std::int64_t{shape.dtype == Dtype::f32 ? 16 : 3} << 20;
}

/// What comes and goes.
void add_step(const model::ModelConfig& config, const std::vector<SymbolicUnit>& units,
              const RunShape& shape, const RankClass& rank, MemoryPlan& plan) {
  constexpr std::int64_t token_bytes = 4 + 8;  // and target
  const LayerSizes sizes = layer_sizes(config, shape, rank);
  SymbolicMemory memory;
  {
    SymbolicStore store(memory, units, sizes.element_bytes, shape.transport);
    const auto batches =
        memory.take(MemoryKind::activations, rank.num_sequences * shape.length * token_bytes);
    SymbolicStep(memory, store, config, sizes, shape.recompute).pass();
    plan.bytes[static_cast<std::size_t>(MemoryKind::messages)] += store.message_bytes();
    plan.bytes[static_cast<std::size_t>(MemoryKind::products)] += products_bytes(shape);
    plan.node.parameters += store.slot_bytes_of_parameters() * shape.ranks_per_node;
    plan.node.gradients += store.slot_bytes_of_gradients() * shape.ranks_per_node;
  }
  plan.node.dispatch += SymbolicSecondHalf::area_bytes(config, sizes) * shape.ranks_per_node;
  std::int64_t live = 0;
  for (std::size_t kind = 0; kind < num_memory_kinds; ++kind) {
    plan.bytes[kind] += memory.kinds_at_peak()[kind];
    live += memory.kinds_at_peak()[kind];
  }
  plan.bytes[static_cast<std::size_t>(MemoryKind::kept)] += memory.reserved_bytes() - live;
}

}  // namespace

std::string_view to_string(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::parameters: return "parameters";
    case MemoryKind::gradients: return "gradients";
    case MemoryKind::optimizer: return "optimizer";
    case MemoryKind::working_parameters: return "working parameters";
    case MemoryKind::gathered_parameters: return "gathered parameters";
    case MemoryKind::gathered_gradients: return "gathered gradients";
    case MemoryKind::activations: return "activations";
    case MemoryKind::temporaries: return "temporaries";
    case MemoryKind::dispatch: return "dispatch";
    case MemoryKind::kept: return "kept by the pool";
    case MemoryKind::messages: return "messages";
    case MemoryKind::products: return "products";
  }
  return "?";
}

std::int64_t MemoryPlan::private_bytes() const {
  return std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
}

void require_sensible(const model::ModelConfig& config, const RunShape& shape) {
  const auto refuse = [](bool wrong, const char* what) {
    if (wrong) fail(ErrorKind::usage, "{}", what);
  };
  refuse(
      shape.num_ranks < 1 || shape.batch < 1 || shape.length < 1 || shape.ranks_per_node < 1 ||
          shape.micro_batch < 0 || !(shape.imbalance >= 1.0),
      "ranks, ranks per node, batch and sequence length are at least 1, and so is the imbalance");
  refuse(shape.num_ranks > 1'000'000, "at most 1,000,000 ranks can be planned for");
  if (shape.expert < 1 || shape.num_ranks % shape.expert != 0) {
    fail(ErrorKind::usage, "--expert {} does not divide --ranks {}", shape.expert, shape.num_ranks);
  }
  if (shape.expert > std::max<std::int64_t>(config.num_experts, 1)) {
    fail(ErrorKind::usage, "--expert {} is more than the model's {} experts", shape.expert,
         config.num_experts);
  }
}

std::vector<MemoryPlan> plan_memory(const model::ModelConfig& config, const RunShape& shape) {
  return plan_memory(config, model::in_vocabulary_chunks(config, model::parameter_units(config)),
                     shape);
}

std::vector<MemoryPlan> plan_memory(const model::ModelConfig& config,
                                    const std::vector<model::ParameterUnit>& units,
                                    const RunShape& given) {
  require_sensible(config, given);
  RunShape shape = given;
  shape.ranks_per_node = std::min(shape.ranks_per_node, shape.num_ranks);
  std::map<RankClass, MemoryPlan> plans = rank_classes(config, shape);
  std::vector<MemoryPlan> result;
  for (auto& [rank, plan] : plans) {
    const std::vector<SymbolicUnit> symbolic = symbolic_units(units, shape, rank);
    plan.ranks_per_node = shape.ranks_per_node;
    add_states(symbolic, shape, plan);
    add_step(config, symbolic, shape, rank, plan);
    result.push_back(plan);
  }
  return result;
}

const MemoryPlan& largest(const std::vector<MemoryPlan>& plans) {
  return *std::max_element(
      plans.begin(), plans.end(),
      [](const MemoryPlan& a, const MemoryPlan& b) { return a.rank_bytes() < b.rank_bytes(); });
}

}  // namespace tessera::study
