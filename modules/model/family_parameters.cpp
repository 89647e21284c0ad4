// SPDX-License-Identifier: Apache-2.0
// Symbols and conditions of the family maps.
#include "family_parameters.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <stdexcept>

namespace tessera::model {

namespace {

const std::map<std::string, std::int64_t (*)(const ModelConfig&)>& symbols() {
  using Config = const ModelConfig&;
  static const std::map<std::string, std::int64_t (*)(Config)> all = {
      {"vocabulary", [](Config c) { return c.vocab_size; }},
      {"hidden", [](Config c) { return c.hidden_size; }},
      {"heads", [](Config c) { return c.num_heads; }},
      {"head_size", [](Config c) { return c.head_size; }},
      {"query", [](Config c) { return c.num_heads * c.head_size; }},
      {"key_value", [](Config c) { return c.num_kv_heads * c.head_size; }},
      {"attended", [](Config c) { return c.num_heads * c.value_size; }},
      {"query_rank", [](Config c) { return c.latent.query_rank; }},
      {"key_value_rank", [](Config c) { return c.latent.key_value_rank; }},
      {"compressed", [](Config c) { return c.latent.key_value_rank + c.latent.rope_size; }},
      {"expanded", [](Config c) { return c.num_heads * (c.latent.nope_size + c.value_size); }},
      {"experts", [](Config c) { return c.num_experts; }},
      {"inner", [](Config c) { return c.intermediate_size; }},
      {"gate_up", [](Config c) { return 2 * c.intermediate_size; }},
      {"dense_inner", [](Config c) { return c.dense_intermediate_size; }},
      {"shared_inner", [](Config c) { return c.shared_intermediate_size; }},
  };
  return all;
}

const std::map<std::string, bool (*)(const ModelConfig&, bool)>& conditions() {
  using Config = const ModelConfig&;
  static const std::map<std::string, bool (*)(Config, bool)> all = {
      {"attention_bias", [](Config c, bool) { return c.attention_bias; }},
      {"mlp_bias", [](Config c, bool) { return c.mlp_bias; }},
      {"tied", [](Config c, bool) { return c.tied_embeddings; }},
      {"query_rank", [](Config c, bool) { return c.latent.query_rank > 0; }},
      {"shared_experts", [](Config c, bool) { return c.shared_intermediate_size > 0; }},
      {"experts", [](Config, bool layer_has_experts) { return layer_has_experts; }},
  };
  return all;
}

/// The condition's name, and whether it is asked for rather than its opposite.
std::pair<std::string, bool> split(const std::string& condition) {
  const bool negated = condition.rfind("not ", 0) == 0;
  return {negated ? condition.substr(4) : condition, !negated};
}

double size_of(const ParameterTemplate& parameter, const ModelConfig& config) {
  double size = 1.0;
  for (const std::string& symbol : parameter.shape) {
    size *= static_cast<double>(size_of_symbol(symbol, config));
  }
  return size;
}

double size_of(const std::vector<ParameterTemplate>& table, const ModelConfig& config,
               bool layer_has_experts) {
  double size = 0.0;
  for (const ParameterTemplate& parameter : table) {
    if (is_present(parameter, config, layer_has_experts)) size += size_of(parameter, config);
  }
  return size;
}

}  // namespace

void check_words(const ParameterTemplate& parameter) {
  const auto check_symbol = [](const std::string& symbol) {
    if (symbols().count(symbol) == 0) throw std::invalid_argument("unknown size '" + symbol + "'");
  };
  std::for_each(parameter.shape.begin(), parameter.shape.end(), check_symbol);
  std::for_each(parameter.rows.begin(), parameter.rows.end(), check_symbol);
  for (const std::string& condition : parameter.when) {
    if (conditions().count(split(condition).first) == 0) {
      throw std::invalid_argument("unknown condition '" + condition + "'");
    }
  }
  if (!parameter.rows.empty() && parameter.part >= parameter.rows.size()) {
    throw std::invalid_argument("part of '" + parameter.name + "' is not among its rows");
  }
}

std::int64_t size_of_symbol(const std::string& symbol, const ModelConfig& config) {
  return symbols().at(symbol)(config);
}

bool is_present(const ParameterTemplate& parameter, const ModelConfig& config,
                bool layer_has_experts) {
  return std::all_of(parameter.when.begin(), parameter.when.end(), [&](const std::string& entry) {
    const auto [condition, wanted] = split(entry);
    return conditions().at(condition)(config, layer_has_experts) == wanted;
  });
}

ParameterCount count_parameters(const Family& family, const ModelConfig& config) {
  const auto num_moe_layers = static_cast<double>(
      std::count(config.layer_has_experts.begin(), config.layer_has_experts.end(), true));
  const double num_dense_layers = static_cast<double>(config.num_layers) - num_moe_layers;
  ParameterCount count;
  count.experts = num_moe_layers * size_of(family.expert, config, true);
  count.total = size_of(family.embedding, config, false) + size_of(family.head, config, false) +
                num_moe_layers * size_of(family.layer, config, true) +
                num_dense_layers * size_of(family.layer, config, false) + count.experts;
  return count;
}

}  // namespace tessera::model
