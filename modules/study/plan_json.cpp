// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>
#include <tessera/study/plan_json.hpp>

namespace tessera::study {
namespace {

using nlohmann::ordered_json;

ordered_json json_of(const MemoryPlan& plan) {
  ordered_json json{{"ranks", plan.num_ranks},
                    {"first_rank", plan.first_rank},
                    {"parameters_owned", plan.num_parameters}};
  for (std::size_t i = 0; i < num_memory_kinds; ++i) {
    json["bytes"][std::string(to_string(static_cast<MemoryKind>(i)))] = plan.bytes[i];
  }
  json["node_bytes"] = {{"parameters", plan.node.parameters},
                        {"gradients", plan.node.gradients},
                        {"dispatch", plan.node.dispatch}};
  json["ranks_per_node"] = plan.ranks_per_node;
  json["rank_bytes"] = plan.rank_bytes();
  json["program_bytes"] = program_bytes;
  return json;
}

ordered_json json_of(const PhaseSeconds& phase) {
  return {{"seconds", phase.sum()},
          {"bound", phase.bound()},
          {"product_s", phase.kernels.product_s},
          {"attention_s", phase.kernels.attention_s},
          {"memory_s", phase.kernels.memory_s},
          {"latency_s", phase.latency_s},
          {"bandwidth_s", phase.bandwidth_s},
          {"imbalance_s", phase.imbalance_s}};
}

ordered_json json_of(const StepTime& time) {
  ordered_json json{{"step", json_of(time.sum())},
                    {"tokens_of_rank", time.tokens},
                    {"flops_of_rank", time.flops},
                    {"communication_s", time.communication_s},
                    {"waited_s", time.waited_s}};
  for (std::size_t i = 0; i < num_step_phases; ++i) {
    if (time.phases[i].sum() == 0.0) continue;
    json["phases"][to_string(static_cast<StepPhase>(i))] = json_of(time.phases[i]);
  }
  return json;
}

ordered_json json_of(const AxisTraffic& axis) {
  return {{"all_gather_bytes", axis.all_gather},
          {"reduce_scatter_bytes", axis.reduce_scatter},
          {"all_to_all_bytes", axis.all_to_all}};
}

ordered_json json_of(const GridPlan& grid) {
  ordered_json json{{"expert", grid.expert},
                    {"traffic_bytes", grid.traffic_bytes},
                    {"memory", json_of(grid.memory)}};
  if (grid.time) json["time"] = json_of(*grid.time);
  return json;
}

}  // namespace

std::string to_json(const GridDetails& details) {
  ordered_json json;
  for (const MemoryPlan& plan : details.memory) json["plans"].push_back(json_of(plan));
  json["traffic"] = {{"world", json_of(details.traffic.world)},
                     {"replica", json_of(details.traffic.replica)},
                     {"expert", json_of(details.traffic.expert)}};
  if (details.time) json["time"] = json_of(*details.time);
  if (const auto& interval = details.interval) {
    json["checkpoint"] = {{"bytes", interval->bytes},       {"save_s", interval->save_s},
                          {"mtbf_s", interval->mtbf_s},     {"young_s", interval->young_s},
                          {"interval_s", interval->daly_s}, {"lost_share", interval->lost}};
  }
  return json.dump(2) + "\n";
}

std::string to_json(const std::vector<GridPlan>& grids, std::optional<std::int64_t> limit_bytes) {
  ordered_json json;
  for (const GridPlan& grid : grids) json["grids"].push_back(json_of(grid));
  if (const auto best = best_grid(grids, limit_bytes)) json["best_expert"] = grids[*best].expert;
  return json.dump(2) + "\n";
}

std::string to_json(const std::vector<RankCountPlan>& plans) {
  ordered_json json;
  for (const RankCountPlan& plan : plans) {
    ordered_json entry{{"ranks", plan.shape.num_ranks}, {"batch", plan.shape.batch}};
    if (plan.best) entry["best"] = json_of(*plan.best);
    json["rank_counts"].push_back(entry);
  }
  return json.dump(2) + "\n";
}

}  // namespace tessera::study
