// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/parameter_units.hpp>

namespace tessera::model {
namespace {

Parameter matrix(std::string name, std::int64_t rows, std::int64_t cols) {
  return {std::move(name), {rows, cols}};
}

/// Norms, biases and sinks: no weight decay.
Parameter vector(std::string name, std::int64_t size) {
  return {std::move(name), {size}, false, false, false};
}

ParameterUnit dense_unit(const ModelConfig& c, std::int64_t layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const std::int64_t q = c.num_heads * c.head_size, kv = c.num_kv_heads * c.head_size;
  ParameterUnit unit{"layers." + std::to_string(layer), false, {}};
  const auto add = [&](Parameter parameter) { unit.parameters.push_back(std::move(parameter)); };
  const auto projection = [&](const char* name, std::int64_t out, std::int64_t in) {
    add(matrix(prefix + "self_attn." + name + ".weight", out, in));
    if (c.attention_bias) add(vector(prefix + "self_attn." + name + ".bias", out));
  };
  add(vector(prefix + "input_layernorm.weight", c.hidden_size));
  projection("q_proj", q, c.hidden_size);
  projection("k_proj", kv, c.hidden_size);
  projection("v_proj", kv, c.hidden_size);
  add(vector(prefix + "self_attn.sinks", c.num_heads));
  projection("o_proj", c.hidden_size, q);
  add(vector(prefix + "post_attention_layernorm.weight", c.hidden_size));
  add(matrix(prefix + "mlp.router.weight", c.num_experts, c.hidden_size));
  add(vector(prefix + "mlp.router.bias", c.num_experts));
  return unit;
}

ParameterUnit expert_unit(const ModelConfig& c, std::int64_t layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".mlp.experts.";
  const std::int64_t e = c.num_experts, h = c.hidden_size, i = c.intermediate_size;
  return {"layers." + std::to_string(layer) + ".expert",
          true,
          {{prefix + "gate_up_proj", {e, 2 * i, h}, true, true, true},
           {prefix + "gate_up_proj_bias", {e, 2 * i}, true, false, false},
           {prefix + "down_proj", {e, h, i}, true, true, true},
           {prefix + "down_proj_bias", {e, h}, true, false, false}}};
}

}  // namespace

std::vector<ParameterUnit> parameter_units(const ModelConfig& c) {
  std::vector<ParameterUnit> units;
  units.push_back(
      {"embedding", false, {matrix("model.embed_tokens.weight", c.vocab_size, c.hidden_size)}});
  for (std::int64_t layer = 0; layer < c.num_layers; ++layer) {
    units.push_back(dense_unit(c, layer));
    units.push_back(expert_unit(c, layer));
  }
  ParameterUnit head{"head", false, {vector("model.norm.weight", c.hidden_size)}};
  if (!c.tied_embeddings) {
    head.parameters.push_back(matrix("lm_head.weight", c.vocab_size, c.hidden_size));
  }
  units.push_back(std::move(head));
  return units;
}

std::vector<Parameter> all_parameters(const std::vector<ParameterUnit>& units) {
  std::vector<Parameter> all;
  for (const ParameterUnit& unit : units) {
    all.insert(all.end(), unit.parameters.begin(), unit.parameters.end());
  }
  return all;
}

std::vector<zero3::UnitSpec> place_units(const comm::ProcessGrid& grid, const ModelConfig& config,
                                         std::vector<ParameterUnit> units) {
  std::vector<zero3::UnitSpec> specs;
  for (ParameterUnit& unit : units) {
    specs.push_back({std::move(unit.name), std::move(unit.parameters),
                     unit.is_expert ? zero3::Placement::expert(grid, config.num_experts)
                                    : zero3::Placement::dense(grid)});
  }
  return specs;
}

}  // namespace tessera::model
