// SPDX-License-Identifier: Apache-2.0
#include "kernel_seconds.hpp"

#include <algorithm>

#include "tessera/study/traffic.hpp"
#include "tessera/study/work.hpp"

namespace tessera::study {
namespace {

constexpr double f32_bytes = 4.0;

double as_double(std::int64_t value) { return static_cast<double>(value); }

}  // namespace

StepKernels::StepKernels(const model::ModelConfig& config,
                         const std::vector<model::ParameterUnit>& units, const RunShape& shape,
                         const Machine& machine)
    : config_(config), shape_(shape), machine_(machine) {
  for (const model::ParameterUnit& unit : units) {
    num_parameters_ += unit_elements(unit);
    if (unit.is_expert || !unit.name.starts_with("layers.")) continue;
    layers_.push_back({projection_elements(unit, "self_attn."), projection_elements(unit, "mlp.")});
  }
  sequences_ = most_sequences(shape);
  if (shape.micro_batch > 0) sequences_ = std::min(sequences_, shape.micro_batch);
  tokens_ = as_double(sequences_ * shape.length);
}

KernelSeconds StepKernels::timed(StepPhase phase, Dtype dtype, double flops, double num_rows,
                                 bool backward, double memory_bytes) const {
  KernelSeconds seconds;
  const double factor = machine_.factor(phase);
  if (flops > 0.0) {
    seconds.product_s =
        factor * flops / machine_.product_rate(dtype, std::max(num_rows, 1.0), backward);
  }
  seconds.memory_s = factor * memory_bytes / machine_.triad_bytes_per_s.value;
  return seconds;
}

KernelSeconds StepKernels::embed() const {
  const double size = tokens_ * as_double(config_.hidden_size);
  return timed(StepPhase::embed, shape_.dtype, 0.0, 1.0, false,
               size * (as_double(element_bytes(shape_)) + f32_bytes));
}

KernelSeconds StepKernels::attention(std::int64_t layer, bool backward) const {
  const StepPhase phase = backward ? StepPhase::attention_backward : StepPhase::attention_forward;
  const std::int64_t window = config_.layer_window[static_cast<std::size_t>(layer)];
  const double e = as_double(element_bytes(shape_)), h = as_double(config_.hidden_size);
  const double heads = as_double(config_.num_heads * config_.head_size +
                                 config_.num_kv_heads * (config_.head_size + config_.value_size));
  const double elements = layers_[static_cast<std::size_t>(layer)].attention_elements;
  // The norm, the residual stream, queries, keys and values turned and narrowed; the weights.
  const double bytes = backward ? tokens_ * (4.0 * h * f32_bytes + 2.0 * heads * (f32_bytes + e))
                                : tokens_ * (h * (3.0 * f32_bytes + e) + heads * (f32_bytes + e));
  KernelSeconds seconds = timed(phase, shape_.dtype, (backward ? 4.0 : 2.0) * tokens_ * elements,
                                tokens_, backward, bytes + elements * e);
  const double flops =
      attention_work(config_, sequences_, shape_.length, window, element_bytes(shape_), backward)
          .flops;
  seconds.attention_s =
      machine_.factor(phase) * flops /
      machine_.attention_rate(shape_.dtype, mean_visible_keys(shape_.length, window), backward);
  return seconds;
}

KernelSeconds StepKernels::route(bool backward) const {
  const double h = as_double(config_.hidden_size), experts = as_double(config_.num_experts);
  const double bytes =
      tokens_ * (h * (backward ? 4.0 : 3.0) * f32_bytes + 2.0 * experts * f32_bytes);
  return timed(backward ? StepPhase::route_backward : StepPhase::route_forward, Dtype::f32,
               (backward ? 4.0 : 2.0) * tokens_ * h * experts, tokens_, backward, bytes);
}

KernelSeconds StepKernels::experts(bool backward, double share) const {
  const double local = as_double(config_.num_experts) / as_double(shape_.expert);
  const double num_rows = tokens_ * as_double(config_.router.options.top_k);
  // Reading few rows' weights is in the rate of products with few rows.
  const Work work = expert_work(config_, num_rows, local, element_bytes(shape_), backward);
  return timed(backward ? StepPhase::expert_backward : StepPhase::expert_forward, shape_.dtype,
               share * work.flops, num_rows / local, backward, 0.0);
}

KernelSeconds StepKernels::dense_mlp(std::int64_t layer, bool backward) const {
  const double elements = layers_[static_cast<std::size_t>(layer)].mlp_elements;
  return timed(backward ? StepPhase::dense_mlp_backward : StepPhase::dense_mlp_forward,
               shape_.dtype, (backward ? 4.0 : 2.0) * tokens_ * elements, tokens_, backward, 0.0);
}

KernelSeconds StepKernels::head() const {
  const double matrix = as_double(config_.vocab_size * config_.hidden_size);
  const double logits = 2.0 * tokens_ * matrix;
  const double forward = config_.vocabulary_chunk > 0 ? 2.0 * logits : logits;
  // Logits are written, read for their sums and replaced by their gradient.
  const double bytes =
      head_work(config_, sequences_ * shape_.length, element_bytes(shape_)).memory_bytes +
      3.0 * tokens_ * as_double(config_.vocab_size) * f32_bytes;
  KernelSeconds seconds = timed(StepPhase::head, shape_.dtype, forward, tokens_, false, bytes);
  seconds.product_s +=
      timed(StepPhase::head, shape_.dtype, 2.0 * logits, tokens_, true, 0.0).product_s;
  return seconds;
}

KernelSeconds StepKernels::optimizer() const {
  const auto owned = static_cast<std::int64_t>(num_parameters_ / as_double(shape_.num_ranks));
  const double update = adamw_work(owned, shape_.dtype == Dtype::f32 ? 0 : owned).memory_bytes;
  const double norm = f32_bytes * as_double(owned);
  return timed(StepPhase::optimizer, shape_.dtype, 0.0, 1.0, false, update + norm);
}

KernelSeconds StepKernels::rows(StepPhase phase) const {
  const double bytes = dispatch_work(config_, sequences_ * shape_.length, shape_.expert,
                                     element_bytes(shape_), phase)
                           .memory_bytes;
  return timed(phase, shape_.dtype, 0.0, 1.0, false, bytes);
}

bool StepKernels::lies_on_node(Axis axis) const {
  const Group group = group_of(axis, shape_);
  return shape_.shares_memory && group.num_nodes() == 1 && group.size > 1;
}

KernelSeconds StepKernels::gather(Axis axis, double elements) const {
  const std::int64_t ranks = group_of(axis, shape_).size;
  if (ranks == 1) return {};
  const Work work = gather_work(elements, ranks, element_bytes(shape_), lies_on_node(axis));
  return timed(StepPhase::gather, shape_.dtype, 0.0, 1.0, false, work.memory_bytes);
}

KernelSeconds StepKernels::reduce(Axis axis, double elements) const {
  const Group group = group_of(axis, shape_);
  if (group.size == 1) return {};
  const Work work = reduce_work(elements, group.size, lies_on_node(axis));
  return timed(StepPhase::reduce_scatter, shape_.dtype, 0.0, 1.0, false, work.memory_bytes);
}

double StepKernels::exchanged_bytes() const {
  return tokens_ *
         as_double(config_.router.options.top_k * config_.hidden_size * element_bytes(shape_));
}

}  // namespace tessera::study
