// SPDX-License-Identifier: Apache-2.0
// config.json of all families: what their maps say is read, every key either understood, known to
// be harmless or refused by name.
#include "tessera/model/config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.hpp"
#include "config_reader.hpp"
#include "family_parameters.hpp"
#include "family_reader.hpp"
#include "family_spelling.hpp"
#include "rope_config.hpp"

namespace tessera::model {

namespace {

// Bounds on what a file may ask for: far beyond any model, small enough that no product overflows
// and no garbage number becomes an allocation.
constexpr std::int64_t largest_size = std::int64_t{1} << 24;
constexpr std::int64_t largest_count = std::int64_t{1} << 16;
constexpr std::int64_t largest_position = std::int64_t{1} << 40;
constexpr std::int64_t most_experts = std::int64_t{1} << 18;  // of all layers together
constexpr double largest_model = 1e14;                        // parameters

std::int64_t size(FamilyReader& reader, const char* key, std::int64_t none = 0) {
  return reader.integer(key, none, 1, largest_size);
}

std::int64_t count(FamilyReader& reader, const char* key, std::int64_t none = 0,
                   std::int64_t lowest = 1) {
  return reader.integer(key, none, lowest, largest_count);
}

void require_decoder(ConfigReader& config) {
  if (config.boolean("is_encoder_decoder", false)) {
    fail(ErrorKind::config, "{} is true; only decoders are implemented",
         config.name("is_encoder_decoder"));
  }
  const bool has_both = config.contains("dtype") && config.contains("torch_dtype");
  config.contains("torch_dtype");
  if (has_both && config.value("dtype") != config.value("torch_dtype")) {
    fail(ErrorKind::config,
         "{} is {} but torch_dtype is {} (two spellings of one parameter must agree)",
         config.name("dtype"), config.value("dtype").dump(), config.value("torch_dtype").dump());
  }
}

void require_readable_quantization(ConfigReader& config, const Family& family) {
  const nlohmann::json* quantization = config.object("quantization_config");
  if (quantization == nullptr) return;
  const std::string method = quantization->value("quant_method", nlohmann::json()).dump();
  if (method == "\"mxfp4\"" && family.may_be_mxfp4()) return;
  if (method != "\"fp8\"") {
    fail(ErrorKind::config,
         "{} {} is not supported for {} (its weights are packed, not plain numbers); use a "
         "checkpoint saved as bf16 or f32",
         config.name("quantization_config"), method, family.model_type);
  }
  const nlohmann::json format = quantization->value("fmt", nlohmann::json("e4m3"));
  const nlohmann::json block = quantization->value("weight_block_size", nlohmann::json());
  if (format != "e4m3" || block != nlohmann::json({128, 128})) {
    fail(ErrorKind::config,
         "{} fp8 of format {} with weight_block_size {} is not implemented; \"e4m3\" with [128, "
         "128] is",
         config.name("quantization_config"), format.dump(), block.dump());
  }
}

void require_even(FamilyReader& reader, const char* key, std::int64_t value) {
  if (value < 2 || value % 2 != 0) {
    fail(ErrorKind::config, "{} {} must be even and positive (rotary embedding turns pairs)",
         reader.name(key), value);
  }
}

void parse_grouped_heads(FamilyReader& reader, ModelConfig& config) {
  if (config.num_heads % config.num_kv_heads != 0) {
    fail(ErrorKind::config,
         "{} {} is not a multiple of num_key_value_heads {} (each key-value head serves "
         "equally many query heads)",
         reader.name("num_attention_heads"), config.num_heads, config.num_kv_heads);
  }
  config.head_size = count(reader, "head_dim", config.hidden_size / config.num_heads);
  require_even(reader, "head_dim", config.head_size);
  config.value_size = config.head_size;
  if (config.query_key_norm == QueryKeyNorm::projection &&
      config.num_heads * config.head_size != config.hidden_size) {
    fail(ErrorKind::config,
         "{} {} times {} heads is not hidden_size {} (the norm of the whole projection has that "
         "size)",
         reader.name("head_dim"), config.head_size, config.num_heads, config.hidden_size);
  }
}

void require_repetition(FamilyReader& reader, const char* key, std::int64_t value,
                        const char* meaning) {
  if (count(reader, key, value) != value) {
    fail(ErrorKind::config, "{} is {} but {} is {} (they are the same)", reader.name(key),
         count(reader, key, value), meaning, value);
  }
}

void parse_latent_heads(FamilyReader& reader, ModelConfig& config) {
  config.latent.query_rank = size(reader, "q_lora_rank", 0);
  config.latent.key_value_rank = size(reader, "kv_lora_rank");
  config.latent.rope_size = count(reader, "qk_rope_head_dim");
  config.latent.nope_size = count(reader, "qk_nope_head_dim");
  config.head_size = config.latent.nope_size + config.latent.rope_size;
  config.value_size = count(reader, "v_head_dim");
  require_even(reader, "qk_rope_head_dim", config.latent.rope_size);
  require_repetition(reader, "num_key_value_heads", config.num_heads, "num_attention_heads");
  require_repetition(reader, "head_dim", config.latent.rope_size, "qk_rope_head_dim");
  require_repetition(reader, "qk_head_dim", config.head_size,
                     "qk_nope_head_dim + qk_rope_head_dim");
}

void parse_attention(FamilyReader& reader, ModelConfig& config) {
  config.attention_bias = reader.boolean("attention_bias", false);
  config.query_key_norm = reader.family().query_key_norm;
  config.clip_qkv = reader.number("clip_qkv", 0.0, 1e-30, 1e30);
  config.num_heads = count(reader, "num_attention_heads");
  config.num_kv_heads = count(reader, "num_key_value_heads", config.num_heads);
  if (reader.family().has_latent_attention) {
    parse_latent_heads(reader, config);
  } else {
    parse_grouped_heads(reader, config);
  }
}

void parse_router(FamilyReader& reader, ModelConfig& config) {
  const Family& family = reader.family();
  moe::RouterOptions& options = config.router.options;
  config.router.name = family.router;
  config.router.has_correction_bias = family.has_correction_bias;
  options.score = family.router_score;
  options.top_k = count(reader, "num_experts_per_tok");
  options.normalize_chosen = reader.boolean("norm_topk_prob", true);
  options.scale = reader.number("routed_scaling_factor", 1.0, 1e-6, 1e6);
  options.num_groups = count(reader, "n_group", 1);
  options.num_kept_groups = count(reader, "topk_group", 1);
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

void parse_mlp(FamilyReader& reader, ModelConfig& config) {
  const Family& family = reader.family();
  const std::int64_t inner = size(reader, "intermediate_size");
  config.activation = family.activation;
  config.mlp_bias = reader.boolean("mlp_bias", false);
  config.swiglu_limit = reader.number("swiglu_limit", config.swiglu_limit, 1e-6, 1e6);
  config.swiglu_alpha = reader.number("swiglu_alpha", config.swiglu_alpha, 1e-6, 1e6);
  config.has_aux_loss = family.has_aux_loss;
  config.router_aux_loss_coef = reader.number("router_aux_loss_coef", 0.0, 0.0, 1e6);
  config.output_router_logits = reader.boolean("output_router_logits", false);
  if (!family.has_experts()) {
    config.dense_intermediate_size = inner;
    return;
  }
  config.num_experts = count(reader, "num_local_experts");
  const std::int64_t expert_inner = size(reader, "moe_intermediate_size", 0);
  config.intermediate_size = expert_inner != 0 ? expert_inner : inner;
  config.dense_intermediate_size = expert_inner != 0 ? inner : 0;
  config.shared_intermediate_size =
      count(reader, "n_shared_experts", 0, 0) * config.intermediate_size;
  parse_router(reader, config);
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
  const std::int64_t first = count(reader, "first_k_dense_replace", 0, 0);
  const std::int64_t step = count(reader, "decoder_sparse_step", 1);
  if (config.num_experts > most_experts / config.num_layers) {
    fail(ErrorKind::config,
         "{} {} in {} layers are more experts than any model has, so a number is wrong",
         reader.name("num_local_experts"), config.num_experts, config.num_layers);
  }
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    config.layer_has_experts.push_back(config.num_experts > 0 && layer >= first &&
                                       (layer + 1) % step == 0);
  }
  const nlohmann::json* without = reader.list("mlp_only_layers");
  if (without != nullptr) remove_experts_of(reader, *without, config);
  const auto& layers = config.layer_has_experts;
  if (std::find(layers.begin(), layers.end(), true) == layers.end()) {
    config.num_experts = 0;  // a dense model, whatever its family
  }
}

bool is_sliding(FamilyReader& reader, const nlohmann::json& layer_type) {
  if (layer_type == "sliding_attention") return true;
  if (layer_type == "full_attention") return false;
  fail(ErrorKind::config, "{} holds {}; 'sliding_attention' and 'full_attention' are implemented",
       reader.name("layer_types"), layer_type.dump());
}

bool is_sliding_by_default(FamilyReader& reader, std::int64_t layer, std::int64_t window) {
  switch (reader.family().sliding_layers) {
    case SlidingLayers::none: return false;
    case SlidingLayers::alternating: return layer % 2 == 0;
    case SlidingLayers::all: return window != 0;
    case SlidingLayers::from_max_window_layers:
      return window != 0 && layer >= count(reader, "max_window_layers", 0, 0);
  }
  return false;
}

void parse_windows(FamilyReader& reader, ModelConfig& config) {
  const nlohmann::json* types = reader.list("layer_types");
  if (types != nullptr && std::ssize(*types) != config.num_layers) {
    fail(ErrorKind::config,
         "{} must be a list with one entry for each of the {} layers (num_hidden_layers)",
         reader.name("layer_types"), config.num_layers);
  }
  std::int64_t window = reader.integer("sliding_window", 0, 1, largest_position);
  if (!reader.boolean("use_sliding_window", true)) window = 0;
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const bool sliding = types != nullptr
                             ? is_sliding(reader, (*types)[static_cast<std::size_t>(layer)])
                             : is_sliding_by_default(reader, layer, window);
    if (sliding && window == 0) {
      fail(ErrorKind::config,
           "{} is null or not in use but there are sliding layers; set it or make every entry of "
           "layer_types 'full_attention'",
           reader.name("sliding_window"));
    }
    config.layer_window.push_back(sliding ? window : 0);
  }
  count(reader, "max_window_layers", 0, 0);
}

void parse_padding(FamilyReader& reader, ModelConfig& config) {
  // As torch's Embedding: counted from the end where negative.
  const std::int64_t none = config.vocab_size;
  const std::int64_t id =
      reader.integer("pad_token_id", none, -config.vocab_size, config.vocab_size - 1);
  config.padding_id = id == none ? -1 : id < 0 ? id + config.vocab_size : id;
}

/// DeepSeek's yarn_apply_mscale: YaRN's correction of the logits is in the scale, not in cos/sin.
double attention_scale(const ModelConfig& config) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.head_size));
  const RopeConfig& rope = config.rope;
  if (!config.is_latent() || rope.mscale_all_dim == 0.0 || rope.factor <= 1.0) return scale;
  const double mscale = 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1.0;
  return scale * mscale * mscale;
}

void require_plausible(const Family& family, const ModelConfig& config, const std::string& origin) {
  const double total = count_parameters(family, config).total;
  if (total > largest_model) {
    fail(ErrorKind::config,
         "{}: the sizes amount to {:.1e} parameters (no model has so many, so a number is wrong)",
         origin, total);
  }
}

ModelConfig parse_family(ConfigReader& json, const Family& family) {
  FamilyReader reader(json, family);
  ModelConfig config;
  config.family = family.model_type;
  require_decoder(json);
  require_readable_quantization(json, family);
  config.vocab_size = size(reader, "vocab_size");
  config.hidden_size = size(reader, "hidden_size");
  config.num_layers = count(reader, "num_hidden_layers");
  config.rms_norm_epsilon = reader.number("rms_norm_eps", 0.0, 1e-30, 1.0);
  config.tied_embeddings = reader.boolean("tie_word_embeddings", false);
  config.initializer_range = reader.number("initializer_range", 0.0, 0.0, 1e6);
  config.max_position = reader.integer("max_position_embeddings", 0, 1, largest_position);
  parse_attention(reader, config);
  parse_mlp(reader, config);
  parse_layers_with_experts(reader, config);
  parse_windows(reader, config);
  parse_padding(reader, config);
  config.rope = parse_rope(reader, config.max_position);
  config.attention_scale = attention_scale(config);
  reader.refuse_unknown();
  return config;
}

std::string amount(double parameters) {
  return parameters >= 1e9   ? fmt::format("{:.2f} B", parameters / 1e9)
         : parameters >= 1e6 ? fmt::format("{:.2f} M", parameters / 1e6)
                             : fmt::format("{:.0f}", parameters);
}

}  // namespace

ModelConfig parse_config(const std::string& json_text, const std::string& origin) {
  nlohmann::json parsed = parse_object(json_text, origin);
  if (is_original_spelling(parsed)) {
    parsed = nlohmann::json::parse(from_original_spelling(json_text));
  }
  ConfigReader reader(parsed, origin);
  reader.value("model_type");
  const Family& family = find_family(reader.text("model_type", ""), reader.name("model_type"));
  ModelConfig config = parse_family(reader, family);
  require_plausible(family, config, origin);
  return config;
}

std::int64_t num_parameters(const ModelConfig& config) {
  return static_cast<std::int64_t>(
      count_parameters(find_family(config.family, "family"), config).total);
}

std::string describe(const ModelConfig& config) {
  const ParameterCount count = count_parameters(find_family(config.family, "family"), config);
  std::string text =
      fmt::format("{}, {} layers, hidden {}", config.family, config.num_layers, config.hidden_size);
  if (config.is_latent()) text += ", latent attention";
  if (config.num_experts == 0) return text + fmt::format(", {} parameters", amount(count.total));
  const auto chosen = static_cast<double>(config.router.options.top_k);
  const double per_token =
      count.total - count.experts * (1.0 - chosen / static_cast<double>(config.num_experts));
  return text + fmt::format(", {} experts (top {}), {} parameters, {} per token",
                            config.num_experts, config.router.options.top_k, amount(count.total),
                            amount(per_token));
}

}  // namespace tessera::model
