// SPDX-License-Identifier: Apache-2.0
// Attention as config.json describes it: grouped or latent heads, scale, windows.
#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.hpp"
#include "family_config.hpp"
#include "rope_config.hpp"

namespace tessera::model {

namespace {

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
  config.head_size = read_count(reader, "head_dim", config.hidden_size / config.num_heads);
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
  if (read_count(reader, key, value) != value) {
    fail(ErrorKind::config, "{} is {} but {} is {} (they are the same)", reader.name(key),
         read_count(reader, key, value), meaning, value);
  }
}

void parse_latent_heads(FamilyReader& reader, ModelConfig& config) {
  config.latent.query_rank = read_size(reader, "q_lora_rank", 0);
  config.latent.key_value_rank = read_size(reader, "kv_lora_rank");
  config.latent.rope_size = read_count(reader, "qk_rope_head_dim");
  config.latent.nope_size = read_count(reader, "qk_nope_head_dim");
  config.head_size = config.latent.nope_size + config.latent.rope_size;
  config.value_size = read_count(reader, "v_head_dim");
  require_even(reader, "qk_rope_head_dim", config.latent.rope_size);
  require_repetition(reader, "num_key_value_heads", config.num_heads, "num_attention_heads");
  require_repetition(reader, "head_dim", config.latent.rope_size, "qk_rope_head_dim");
  require_repetition(reader, "qk_head_dim", config.head_size,
                     "qk_nope_head_dim + qk_rope_head_dim");
}

/// DeepSeek's yarn_apply_mscale: YaRN's correction of the logits is in the scale, not in cos/sin.
double attention_scale(const ModelConfig& config) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.head_size));
  const RopeConfig& rope = config.rope;
  if (!config.is_latent() || rope.mscale_all_dim == 0.0 || rope.factor <= 1.0) return scale;
  const double mscale = 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1.0;
  return scale * mscale * mscale;
}

bool is_sliding(FamilyReader& reader, const nlohmann::json& layer_type) {
  const std::string type = layer_type.is_string() ? layer_type.get<std::string>() : "";
  if (type == "sliding_attention") return true;
  if (type == "full_attention") return false;
  fail(ErrorKind::config, "{} holds {}; 'sliding_attention' and 'full_attention' are implemented",
       reader.name("layer_types"), layer_type.dump());
}

bool is_sliding_by_default(FamilyReader& reader, std::int64_t layer, std::int64_t window) {
  switch (reader.family().sliding_layers) {
    case SlidingLayers::none: return false;
    case SlidingLayers::alternating: return layer % 2 == 0;
    case SlidingLayers::all: return window != 0;
    case SlidingLayers::from_max_window_layers:
      return window != 0 && layer >= read_count(reader, "max_window_layers", 0, 0);
  }
  return false;
}

}  // namespace

void parse_attention(FamilyReader& reader, ModelConfig& config) {
  config.attention_bias = reader.boolean("attention_bias", false);
  config.query_key_norm = reader.family().query_key_norm;
  config.clip_qkv = reader.number("clip_qkv", 0.0, 1e-30, 1e30);
  config.num_heads = read_count(reader, "num_attention_heads");
  config.num_kv_heads = read_count(reader, "num_key_value_heads", config.num_heads);
  if (reader.family().has_latent_attention) {
    parse_latent_heads(reader, config);
  } else {
    parse_grouped_heads(reader, config);
  }
  config.rope = parse_rope(reader, config.max_position);
  config.attention_scale = attention_scale(config);
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
  read_count(reader, "max_window_layers", 0, 0);
}

}  // namespace tessera::model
