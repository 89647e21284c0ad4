// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <tessera/study/describe_plan.hpp>
#include <tessera/study/describe_time.hpp>

namespace tessera::study {
namespace {

std::string size(std::int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return value < 1024.0 * 1024.0 * 1024.0 ? fmt::format("{:.1f} MiB", value / (1 << 20))
                                          : fmt::format("{:.2f} GiB", value / (1 << 30));
}

template <class Cell>
std::string line(std::string_view name, const std::vector<MemoryPlan>& plans, const Cell& cell) {
  std::string text = fmt::format("{:<28}", name);
  for (const MemoryPlan& plan : plans) text += fmt::format(" {:>14}", cell(plan));
  return text + "\n";
}

/// What stays from step to step.
std::int64_t state_bytes(const MemoryPlan& plan) {
  return plan.of(MemoryKind::parameters) + plan.of(MemoryKind::gradients) +
         plan.of(MemoryKind::optimizer) + plan.of(MemoryKind::working_parameters);
}

}  // namespace

std::string describe(const RunShape& shape) {
  return fmt::format(
      "{} ranks = {} expert x {} replica, {} per node{}; batch {} x {}{}, {}, {}, recompute {}{}",
      shape.num_ranks, shape.expert, shape.num_ranks / shape.expert, shape.ranks_per_node,
      shape.shares_memory ? "" : " without shared memory", shape.batch, shape.length,
      shape.micro_batch > 0 ? fmt::format(" in micro-batches of {}", shape.micro_batch) : "",
      tessera::to_string(shape.dtype), zero3::to_string(shape.optimizer),
      model::to_string(shape.recompute),
      shape.imbalance > 1.0 ? fmt::format(", imbalance {}", shape.imbalance) : "");
}

std::string describe(const std::vector<MemoryPlan>& plans) {
  std::string text = line("ranks that are alike", plans,
                          [](const MemoryPlan& plan) { return fmt::format("{}", plan.num_ranks); });
  text += line("first of them", plans,
               [](const MemoryPlan& plan) { return fmt::format("{}", plan.first_rank); });
  text += line("parameters owned", plans,
               [](const MemoryPlan& plan) { return fmt::format("{}", plan.num_parameters); });
  for (std::size_t i = 0; i < num_memory_kinds; ++i) {
    const auto kind = static_cast<MemoryKind>(i);
    std::int64_t sum = 0;
    for (const MemoryPlan& plan : plans) sum += plan.of(kind);
    if (sum == 0) continue;
    text +=
        line(to_string(kind), plans, [&](const MemoryPlan& plan) { return size(plan.of(kind)); });
  }
  const auto node_line = [&](const char* name, std::int64_t NodeMemory::*part) {
    std::int64_t sum = 0;
    for (const MemoryPlan& plan : plans) sum += plan.node.*part;
    if (sum == 0) return;
    text += line(name, plans, [&](const MemoryPlan& plan) { return size(plan.node.*part); });
  };
  node_line("node: parameters", &NodeMemory::parameters);
  node_line("node: gradients", &NodeMemory::gradients);
  node_line("node: dispatch", &NodeMemory::dispatch);
  text += line("rank, with its share of node", plans,
               [](const MemoryPlan& plan) { return size(plan.rank_bytes()); });
  return text + line("and the program", plans, [](const MemoryPlan& plan) {
           return size(plan.rank_bytes() + program_bytes);
         });
}

std::string summarize(const MemoryPlan& plan) {
  const std::int64_t states = state_bytes(plan);
  return fmt::format(
      "`tessera plan` foretells {} for the rank that needs most: {} of parameters, gradients and "
      "optimizer, {} of a step, {} as its share of the node's, and the program",
      size(plan.rank_bytes() + program_bytes), size(states), size(plan.private_bytes() - states),
      size(plan.node.sum() / plan.ranks_per_node));
}

std::string describe(const std::vector<GridPlan>& grids, std::optional<std::int64_t> limit_bytes) {
  const auto best = best_grid(grids, limit_bytes);
  const bool has_times = !grids.empty() && grids.front().time.has_value();
  std::string text = fmt::format("  {:>8} {:>12} {:>12} {:>12} {:>14} {:>16}", "expert", "states",
                                 "step", "of node", "rank", "traffic a step");
  text += has_times ? fmt::format(" {:>12}  {}\n", "step time", "bound by") : "\n";
  for (std::size_t i = 0; i < grids.size(); ++i) {
    const MemoryPlan& plan = grids[i].memory;
    const std::int64_t states = state_bytes(plan);
    text += fmt::format("{} {:>8} {:>12} {:>12} {:>12} {:>14} {:>16}", best == i ? '*' : ' ',
                        grids[i].expert, size(states), size(plan.private_bytes() - states),
                        size(plan.node.sum() / plan.ranks_per_node),
                        size(plan.rank_bytes() + program_bytes),
                        size(static_cast<std::int64_t>(grids[i].traffic_bytes)));
    if (const auto& time = grids[i].time) {
      text += fmt::format(" {:>12}  {}", describe_seconds(time->seconds()), time->sum().bound());
    }
    text += "\n";
  }
  if (!best) {
    return text + fmt::format(
                      "No grid fits into {} per rank: more ranks, a smaller --micro-batch "
                      "or --recompute layer would need less.\n",
                      size(*limit_bytes));
  }
  return text + fmt::format("* --expert {}: the {} of all{}.\n", grids[*best].expert,
                            has_times ? "quickest" : "least traffic",
                            limit_bytes
                                ? fmt::format(" that fit into {} per rank", size(*limit_bytes))
                                : std::string());
}

}  // namespace tessera::study
