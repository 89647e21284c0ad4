// SPDX-License-Identifier: Apache-2.0
// What the kernels of a step have to do at least: multiplications and additions of the products,
// and each array moved once between memory and processor.
#include <algorithm>
#include <tessera/study/work.hpp>

namespace tessera::study {
namespace {

constexpr double f32_bytes = 4.0;

double as_double(std::int64_t value) { return static_cast<double>(value); }

/// Pairs of positions (query, visible key) of one head in one sequence.
double visible_pairs(std::int64_t length, std::int64_t window) {
  const double s = as_double(length), w = as_double(window > 0 ? std::min(window, length) : length);
  return w * (w + 1.0) / 2.0 + (s - w) * w;
}

}  // namespace

Work& Work::operator+=(const Work& other) {
  flops += other.flops;
  memory_bytes += other.memory_bytes;
  message_bytes += other.message_bytes;
  return *this;
}

double mean_visible_keys(std::int64_t length, std::int64_t window) {
  return visible_pairs(length, window) / as_double(length);
}

Work expert_work(const model::ModelConfig& config, double rows, double local_experts,
                 std::int64_t element_bytes, bool backward) {
  const double h = as_double(config.hidden_size), i = as_double(config.intermediate_size);
  const double matrices = 3.0 * h * i, e = as_double(element_bytes);
  const double weights = local_experts * matrices;
  // Forward: rows in, hidden kept, outputs out.
  Work work{2.0 * rows * matrices, weights * e + rows * (2.0 * h * e + 2.0 * i * f32_bytes), 0.0};
  if (backward) {  // the kept ones and the output's gradient in, the rows' and the weights' out
    work.flops *= 2.0;
    work.memory_bytes += weights * f32_bytes + rows * h * e;
  }
  return work;
}

Work attention_work(const model::ModelConfig& config, std::int64_t sequences, std::int64_t length,
                    std::int64_t window, std::int64_t element_bytes, bool backward) {
  const double d = as_double(config.head_size), v = as_double(config.value_size);
  const double tokens = as_double(sequences * length), e = as_double(element_bytes);
  const double q_heads = as_double(config.num_heads), kv_heads = as_double(config.num_kv_heads);
  const double pairs = as_double(sequences) * q_heads * visible_pairs(length, window);
  const double inputs = q_heads * d + kv_heads * (d + v), out = q_heads * v;
  if (!backward) {
    return {2.0 * pairs * (d + v), tokens * (inputs * e + out * f32_bytes), 0.0};
  }
  // Scores again, then the gradients of probabilities, values, queries and keys.
  return {2.0 * pairs * (3.0 * d + 2.0 * v),
          tokens * (inputs * (e + f32_bytes) + out * (f32_bytes + e)), 0.0};
}

Work head_work(const model::ModelConfig& config, std::int64_t tokens, std::int64_t element_bytes) {
  const double t = as_double(tokens), h = as_double(config.hidden_size);
  const double matrix = as_double(config.vocab_size) * h, e = as_double(element_bytes);
  return {6.0 * t * matrix, matrix * (e + 2.0 * f32_bytes) + 2.0 * t * h * f32_bytes, 0.0};
}

Work adamw_work(std::int64_t num_parameters, std::int64_t num_copied) {
  // Reads gradient, parameter and both moments; writes the last three and the bf16 copy. Some ten
  // operations each, which memory hides.
  return {0.0, 7.0 * f32_bytes * as_double(num_parameters) + 2.0 * as_double(num_copied), 0.0};
}

Work dispatch_work(const model::ModelConfig& config, std::int64_t tokens, std::int64_t expert_ranks,
                   std::int64_t element_bytes, StepPhase phase) {
  const double width = as_double(config.hidden_size), t = as_double(tokens) * width;
  const double rows = t * as_double(config.router.options.top_k), e = as_double(element_bytes);
  const double away = 1.0 - 1.0 / as_double(expert_ranks);
  Work work{0.0, 0.0, rows * e * away};
  switch (phase) {
    case StepPhase::dispatch_forward: work.memory_bytes = (t + rows) * e; break;
    case StepPhase::dispatch_backward:
    case StepPhase::combine_forward: work.memory_bytes = rows * e + 2.0 * t * f32_bytes; break;
    case StepPhase::combine_backward: work.memory_bytes = 2.0 * rows * e + t * f32_bytes; break;
    default: break;
  }
  return work;
}

Work gather_work(double whole, std::int64_t num_ranks, std::int64_t element_bytes,
                 bool shares_memory) {
  if (shares_memory) return {};  // it lies there whole, and the optimizer has written it
  const double shard = whole / as_double(num_ranks), e = as_double(element_bytes);
  return {0.0, shard * f32_bytes + whole * e, (whole - shard) * e};
}

Work reduce_work(double whole, std::int64_t num_ranks, bool shares_memory) {
  const double shard = whole / as_double(num_ranks);
  const double bytes =
      whole * f32_bytes + 2.0 * shard * f32_bytes;  // read once, added to the shard
  return {0.0, bytes, shares_memory ? 0.0 : (whole - shard) * f32_bytes};
}

double projection_elements(const model::ParameterUnit& unit, std::string_view part) {
  double elements = 0.0;
  for (const Parameter& parameter : unit.parameters) {
    const bool is_meant = parameter.name.find(part) != std::string::npos &&
                          parameter.name.find("_proj") != std::string::npos;
    if (unit.is_expert || parameter.shape.size() != 2 || !is_meant) continue;
    elements += as_double(parameter.size());
  }
  return elements;
}

double projection_flops(const model::ModelConfig& config, std::int64_t tokens,
                        std::string_view part) {
  double elements = 0.0;
  for (const model::ParameterUnit& unit : parameter_units(config)) {
    elements += projection_elements(unit, part);
  }
  return 2.0 * as_double(tokens) * elements;
}

double step_flops(const model::ModelConfig& config, std::int64_t sequences, std::int64_t length) {
  const double tokens = as_double(sequences * length);
  double flops = 0.0;
  for (const model::ParameterUnit& unit : parameter_units(config)) {
    for (const Parameter& parameter : unit.parameters) {
      const bool is_looked_up = parameter.name.ends_with("embed_tokens.weight");
      if (parameter.shape.size() < 2 || (is_looked_up && !config.tied_embeddings)) continue;
      const double active =
          unit.is_expert ? as_double(config.router.options.top_k) / as_double(config.num_experts)
                         : 1.0;
      if (unit.is_expert && parameter.shape.size() < 3) continue;  // a bias of each expert
      flops += 6.0 * tokens * active * as_double(num_elements(parameter.shape));
    }
  }
  for (const std::int64_t window : config.layer_window) {
    for (const bool backward : {false, true}) {
      flops += attention_work(config, sequences, length, window, 0, backward).flops;
    }
  }
  return flops;
}

}  // namespace tessera::study
