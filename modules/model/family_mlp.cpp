// SPDX-License-Identifier: Apache-2.0
// The second half of the layers as config.json describes it: experts, their router, and which
// layers have a dense MLP instead.
#include <algorithm>

#include "base/error.hpp"
#include "family_config.hpp"

namespace tessera::model {

namespace {

constexpr std::int64_t most_experts = std::int64_t{1} << 18;  // of all layers together

void parse_router(FamilyReader& reader, ModelConfig& config) {
  const Family& family = reader.family();
  moe::RouterOptions& options = config.router.options;
  config.router.name = family.router;
  config.router.has_correction_bias = family.has_correction_bias;
  options.score = family.router_score;
  options.top_k = read_count(reader, "num_experts_per_tok");
  options.normalize_chosen = reader.boolean("norm_topk_prob", true);
  options.scale = reader.number("routed_scaling_factor", 1.0, 1e-6, 1e6);
  options.num_groups = read_count(reader, "n_group", 1);
  options.num_kept_groups = read_count(reader, "topk_group", 1);
  if (options.num_kept_groups > options.num_groups ||
      config.num_experts % options.num_groups != 0) {
    fail(ErrorKind::config, "{} {} must divide the {} experts and be at least topk_group {}",
         reader.name("n_group"), options.num_groups, config.num_experts, options.num_kept_groups);
  }
  const std::int64_t group_size = config.num_experts / options.num_groups;
  if (options.score == moe::RouterScore::sigmoid && group_size < 2) {
    fail(ErrorKind::config, "{} {} leaves one expert to a group (groups are ranked by two)",
         reader.name("n_group"), options.num_groups);
  }
  if (options.top_k > options.num_kept_groups * group_size) {
    fail(ErrorKind::config, "{} {} is more than the {} experts of a layer that can be chosen",
         reader.name("num_experts_per_tok"), options.top_k, options.num_kept_groups * group_size);
  }
}

void remove_experts_of(FamilyReader& reader, const nlohmann::json& layers, ModelConfig& config) {
  for (const nlohmann::json& layer : layers) {
    if (!layer.is_number_unsigned()) {
      fail(ErrorKind::config, "{} holds {} but must hold numbers of layers",
           reader.name("mlp_only_layers"), layer.dump());
    }
    const auto index = layer.get<std::size_t>();
    if (index < config.layer_has_experts.size()) config.layer_has_experts[index] = false;
  }
}

void parse_layers_with_experts(FamilyReader& reader, ModelConfig& config) {
  const std::int64_t first = read_count(reader, "first_k_dense_replace", 0, 0);
  const std::int64_t step = read_count(reader, "decoder_sparse_step", 1);
  if (config.num_experts > most_experts / config.num_layers) {
    fail(ErrorKind::config,
         "{} {} in {} layers are more experts than any model has, so a number is wrong",
         reader.name("num_local_experts"), config.num_experts, config.num_layers);
  }
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    config.layer_has_experts.push_back(layer >= first && (layer + 1) % step == 0);
  }
  const nlohmann::json* without = reader.list("mlp_only_layers");
  if (without != nullptr) remove_experts_of(reader, *without, config);
  const auto& layers = config.layer_has_experts;
  if (std::find(layers.begin(), layers.end(), true) == layers.end()) {
    config.num_experts = 0;  // a dense model, whatever its family
  }
}

}  // namespace

void parse_mlp(FamilyReader& reader, ModelConfig& config) {
  const Family& family = reader.family();
  const std::int64_t inner = read_size(reader, "intermediate_size");
  config.activation = family.activation;
  config.mlp_bias = reader.boolean("mlp_bias", false);
  config.swiglu_limit = reader.number("swiglu_limit", config.swiglu_limit, 1e-6, 1e6);
  config.swiglu_alpha = reader.number("swiglu_alpha", config.swiglu_alpha, 1e-6, 1e6);
  config.has_aux_loss = family.has_aux_loss;
  config.router_aux_loss_coef = reader.number("router_aux_loss_coef", 0.0, 0.0, 1e6);
  config.output_router_logits = reader.boolean("output_router_logits", false);
  if (!family.has_experts()) {
    config.dense_intermediate_size = inner;
    config.layer_has_experts.assign(static_cast<std::size_t>(config.num_layers), false);
    return;
  }
  config.num_experts = read_count(reader, "num_local_experts");
  const std::int64_t expert_inner = read_size(reader, "moe_intermediate_size", 0);
  config.intermediate_size = expert_inner != 0 ? expert_inner : inner;
  config.dense_intermediate_size = expert_inner != 0 ? inner : 0;
  config.shared_intermediate_size =
      read_count(reader, "n_shared_experts", 0, 0) * config.intermediate_size;
  parse_router(reader, config);
  parse_layers_with_experts(reader, config);
}

}  // namespace tessera::model
