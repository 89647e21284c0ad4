// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/study/traffic.hpp>

namespace tessera::study {
namespace {

/// What the others of a group hold.
double others(std::int64_t group_size) {
  return static_cast<double>(group_size - 1) / static_cast<double>(group_size);
}

}  // namespace

double unit_elements(const model::ParameterUnit& unit) {
  double sum = 0.0;
  for (const Parameter& parameter : unit.parameters) sum += static_cast<double>(parameter.size());
  return sum;
}

std::int64_t most_sequences(const RunShape& shape) {
  return (shape.batch + shape.num_ranks - 1) / shape.num_ranks;
}

std::int64_t num_micro_steps(const RunShape& shape) {
  const std::int64_t sequences = most_sequences(shape);
  return shape.micro_batch > 0 ? (sequences + shape.micro_batch - 1) / shape.micro_batch : 1;
}

std::int64_t num_exchanges(const RunShape& shape) {
  return shape.recompute == model::Recompute::layer ? 6 : 4;
}

std::int64_t element_bytes(const RunShape& shape) { return shape.dtype == Dtype::f32 ? 4 : 2; }

std::int64_t gradient_bytes(const RunShape& shape) {
  return shape.transport == zero3::GradientTransport::f32 ? 4 : 2;
}

UnitPasses passes_of(const model::ModelConfig& config, const model::ParameterUnit& unit) {
  if (unit.name.starts_with("layers.")) return {2.0, 1.0};
  const std::int64_t num_chunks =
      config.vocabulary_chunk == 0
          ? 1
          : (config.vocab_size + config.vocabulary_chunk - 1) / config.vocabulary_chunk;
  // The chunk that forward has last is the one that backward has first.
  const double of_head = 2.0 - 1.0 / static_cast<double>(num_chunks);
  if (unit.name != "embedding") return {of_head, 1.0};
  if (!config.tied_embeddings) return {1.0, 1.0};
  return {1.0 + of_head, num_chunks == 1 ? 1.0 : 2.0};
}

PlannedTraffic planned_traffic(const model::ModelConfig& config,
                               const std::vector<model::ParameterUnit>& units,
                               const RunShape& shape) {
  const auto passes = static_cast<double>(num_micro_steps(shape));
  const auto weight = static_cast<double>(element_bytes(shape));
  const auto gradient = static_cast<double>(gradient_bytes(shape));
  PlannedTraffic traffic;
  for (const model::ParameterUnit& unit : units) {
    const UnitPasses times = passes_of(config, unit);
    const std::int64_t group = unit.is_expert ? shape.num_ranks / shape.expert : shape.num_ranks;
    const double here =
        unit_elements(unit) / (unit.is_expert ? static_cast<double>(shape.expert) : 1.0);
    AxisTraffic& axis = unit.is_expert ? traffic.replica : traffic.world;
    axis.all_gather += passes * times.gathers * here * weight * others(group);
    axis.reduce_scatter += passes * times.sums * here * gradient * others(group);
  }
  const auto layers = static_cast<double>(
      std::count(config.layer_has_experts.begin(), config.layer_has_experts.end(), true));
  const auto rows =
      static_cast<double>(most_sequences(shape) * shape.length * config.router.options.top_k);
  traffic.expert.all_to_all = static_cast<double>(num_exchanges(shape)) * layers * rows *
                              static_cast<double>(config.hidden_size) * weight *
                              others(shape.expert);
  return traffic;
}

}  // namespace tessera::study
