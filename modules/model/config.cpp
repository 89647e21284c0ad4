// SPDX-License-Identifier: Apache-2.0
// config.json of gpt-oss: defaults as transformers' GptOssConfig, every key either understood,
// known to be harmless or refused by name.
#include "tessera/model/config.hpp"

#include <fmt/format.h>

#include <string>

#include "base/error.hpp"
#include "config_reader.hpp"
#include "rope_config.hpp"

namespace tessera::model {

namespace {

// Bounds on what a file may ask for: far beyond any model, small enough that no product overflows
// and no garbage number becomes an allocation.
constexpr std::int64_t largest_size = std::int64_t{1} << 24;
constexpr std::int64_t largest_count = std::int64_t{1} << 16;
constexpr std::int64_t largest_position = std::int64_t{1} << 40;
constexpr double largest_model = 1e14;  // parameters

std::int64_t size(ConfigReader& reader, const char* key, std::int64_t fallback) {
  return reader.integer(key, fallback, 1, largest_size);
}

std::int64_t count(ConfigReader& reader, const char* key, std::int64_t fallback) {
  return reader.integer(key, fallback, 1, largest_count);
}

/// The value under `key`; where `other` occurs too it must be the same.
std::int64_t count_in_two_spellings(ConfigReader& reader, const char* key, const char* other,
                                    std::int64_t fallback) {
  const std::int64_t other_value = count(reader, other, 0);
  const std::int64_t value = count(reader, key, other_value != 0 ? other_value : fallback);
  if (other_value != 0 && other_value != value) {
    fail(ErrorKind::config,
         "{} is {} but {} is {} (two spellings of one parameter must agree); correct or remove one",
         reader.name(key), value, other, other_value);
  }
  return value;
}

void require_implemented(ConfigReader& reader) {
  if (reader.has("quantization_config")) {
    const nlohmann::json* quantization = reader.object("quantization_config");
    const auto method = quantization->find("quant_method");
    fail(ErrorKind::config,
         "{} {} is not supported (its weights are packed, not plain numbers); use a checkpoint "
         "saved as bf16 or f32",
         reader.name("quantization_config"), method == quantization->end() ? "" : method->dump());
  }
  if (reader.text("hidden_act", "silu") != "silu") {
    fail(ErrorKind::config, "{} '{}' is not implemented; gpt-oss has 'silu'",
         reader.name("hidden_act"), reader.text("hidden_act", ""));
  }
  if (reader.number("attention_dropout", 0.0, 0.0, 1.0) != 0.0) {
    fail(ErrorKind::config, "{} other than 0 is not implemented (training would differ)",
         reader.name("attention_dropout"));
  }
  if (reader.boolean("is_encoder_decoder", false)) {
    fail(ErrorKind::config, "{} is true; only decoders are implemented",
         reader.name("is_encoder_decoder"));
  }
  const bool has_dtype = reader.contains("dtype");
  const bool has_torch_dtype = reader.contains("torch_dtype");
  if (has_dtype && has_torch_dtype && reader.value("dtype") != reader.value("torch_dtype")) {
    fail(ErrorKind::config,
         "{} is {} but torch_dtype is {} (two spellings of one parameter must agree)",
         reader.name("dtype"), reader.value("dtype").dump(), reader.value("torch_dtype").dump());
  }
}

void parse_heads(ConfigReader& reader, ModelConfig& config) {
  config.num_heads = count(reader, "num_attention_heads", 64);
  config.num_kv_heads = reader.is_null("num_key_value_heads")
                            ? config.num_heads
                            : count(reader, "num_key_value_heads", 8);
  if (config.num_heads % config.num_kv_heads != 0) {
    fail(ErrorKind::config,
         "{} {} is not a multiple of num_key_value_heads {} (each key-value head serves "
         "equally many query heads)",
         reader.name("num_attention_heads"), config.num_heads, config.num_kv_heads);
  }
  config.head_size = reader.is_null("head_dim") ? config.hidden_size / config.num_heads
                                                : count(reader, "head_dim", 64);
  if (config.head_size < 2 || config.head_size % 2 != 0) {
    fail(ErrorKind::config, "{} {} must be even and positive (rotary embedding turns pairs)",
         reader.name("head_dim"), config.head_size);
  }
}

void parse_experts(ConfigReader& reader, ModelConfig& config) {
  config.num_experts = count_in_two_spellings(reader, "num_local_experts", "num_experts", 128);
  config.top_k = count(reader, "num_experts_per_tok", 4);
  if (config.top_k > config.num_experts) {
    fail(ErrorKind::config, "{} {} is more than the {} experts of a layer",
         reader.name("num_experts_per_tok"), config.top_k, config.num_experts);
  }
  // transformers takes no notice of the original release's key, so it may only repeat.
  if (reader.contains("experts_per_token") &&
      count(reader, "experts_per_token", 0) != config.top_k) {
    fail(ErrorKind::config,
         "{} is {} but num_experts_per_tok is {} (two spellings of one parameter must agree)",
         reader.name("experts_per_token"), count(reader, "experts_per_token", 0), config.top_k);
  }
  config.swiglu_limit = reader.number("swiglu_limit", config.swiglu_limit, 1e-6, 1e6);
  config.swiglu_alpha = reader.number("swiglu_alpha", config.swiglu_alpha, 1e-6, 1e6);
  config.router_aux_loss_coef = reader.number("router_aux_loss_coef", 0.001, 0.0, 1e6);
  config.output_router_logits = reader.boolean("output_router_logits", false);
}

bool is_sliding(ConfigReader& reader, const nlohmann::json& layer_type) {
  if (layer_type == "sliding_attention") {
    return true;
  }
  if (layer_type == "full_attention") {
    return false;
  }
  fail(ErrorKind::config, "{} holds {}; 'sliding_attention' and 'full_attention' are implemented",
       reader.name("layer_types"), layer_type.dump());
}

std::int64_t window_of_sliding_layers(ConfigReader& reader) {
  if (reader.is_null("sliding_window")) {
    fail(ErrorKind::config,
         "{} is null but there are sliding layers; set it or make every entry of layer_types "
         "'full_attention'",
         reader.name("sliding_window"));
  }
  return reader.integer("sliding_window", 128, 1, largest_position);
}

void parse_layers(ConfigReader& reader, ModelConfig& config) {
  config.num_layers = count(reader, "num_hidden_layers", 36);
  const nlohmann::json* types = reader.has("layer_types") ? &reader.value("layer_types") : nullptr;
  if (types != nullptr && (!types->is_array() || std::ssize(*types) != config.num_layers)) {
    fail(ErrorKind::config,
         "{} must be a list with one entry for each of the {} layers (num_hidden_layers)",
         reader.name("layer_types"), config.num_layers);
  }
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const bool sliding = types != nullptr
                             ? is_sliding(reader, (*types)[static_cast<std::size_t>(layer)])
                             : layer % 2 == 0;
    config.layer_window.push_back(sliding ? window_of_sliding_layers(reader) : 0);
  }
  reader.contains("sliding_window");
}

void parse_padding(ConfigReader& reader, ModelConfig& config) {
  if (!reader.has("pad_token_id")) {
    return;
  }
  // As torch's Embedding: counted from the end where negative.
  const std::int64_t id =
      reader.integer("pad_token_id", 0, -config.vocab_size, config.vocab_size - 1);
  config.padding_id = id < 0 ? id + config.vocab_size : id;
}

/// Keys without any influence on the numbers of a forward or backward pass. Those of text
/// generation are dropped by transformers too.
void refuse_unknown_keys(const ConfigReader& reader) {
  reader.refuse_unknown({"architectures",
                         "auto_map",
                         "transformers_version",
                         "use_cache",
                         "bos_token_id",
                         "eos_token_id",
                         "initial_context_length",
                         "_name_or_path",
                         "name_or_path",
                         "_commit_hash",
                         "id2label",
                         "label2id",
                         "problem_type",
                         "output_attentions",
                         "output_hidden_states",
                         "return_dict",
                         "chunk_size_feed_forward",
                         "attn_implementation",
                         "_attn_implementation",
                         "_attn_implementation_autoset",
                         "experts_implementation",
                         "_experts_implementation",
                         "tokenizer_class",
                         "task_specific_params",
                         "torchscript",
                         "pruned_heads",
                         "do_sample",
                         "temperature",
                         "top_k",
                         "top_p",
                         "typical_p",
                         "max_length",
                         "min_length",
                         "num_beams",
                         "num_beam_groups",
                         "num_return_sequences",
                         "repetition_penalty",
                         "length_penalty",
                         "diversity_penalty",
                         "no_repeat_ngram_size",
                         "encoder_no_repeat_ngram_size",
                         "early_stopping",
                         "bad_words_ids",
                         "forced_bos_token_id",
                         "forced_eos_token_id",
                         "suppress_tokens",
                         "begin_suppress_tokens",
                         "exponential_decay_length_penalty",
                         "output_scores",
                         "remove_invalid_values",
                         "return_dict_in_generate"});
}

/// In double, where garbage sizes cannot overflow; exact up to the largest model.
double count_parameters(const ModelConfig& config) {
  const auto real = [](std::int64_t value) { return static_cast<double>(value); };
  const double hidden = real(config.hidden_size);
  const double query = real(config.num_heads) * real(config.head_size);
  const double key_value = real(config.num_kv_heads) * real(config.head_size);
  const double inner = real(config.intermediate_size);
  const double bias = config.attention_bias ? 1.0 : 0.0;
  const double attention = 2.0 * hidden * (query + key_value) +
                           bias * (query + 2.0 * key_value + hidden) + real(config.num_heads);
  const double expert = hidden * 2.0 * inner + 2.0 * inner + inner * hidden + hidden;
  const double router = hidden + 1.0;
  const double layer = attention + real(config.num_experts) * (router + expert) + 2.0 * hidden;
  const double embeddings = (config.tied_embeddings ? 1.0 : 2.0) * real(config.vocab_size) * hidden;
  return embeddings + real(config.num_layers) * layer + hidden;
}

}  // namespace

ModelConfig parse_config(const std::string& json_text, const std::string& origin) {
  const nlohmann::json parsed = parse_object(json_text, origin);
  ConfigReader reader(parsed, origin);
  ModelConfig config;
  reader.value("model_type");
  config.family = reader.text("model_type", "");
  if (config.family != "gpt_oss") {
    fail(ErrorKind::config, "{} '{}' is not implemented; 'gpt_oss' is", reader.name("model_type"),
         config.family);
  }
  require_implemented(reader);
  config.vocab_size = size(reader, "vocab_size", 201088);
  config.hidden_size = size(reader, "hidden_size", 2880);
  config.intermediate_size = size(reader, "intermediate_size", 2880);
  config.rms_norm_epsilon = reader.number("rms_norm_eps", 1e-5, 1e-30, 1.0);
  config.tied_embeddings = reader.boolean("tie_word_embeddings", false);
  config.attention_bias = reader.boolean("attention_bias", true);
  config.initializer_range = reader.number("initializer_range", 0.02, 0.0, 1e6);
  config.max_position = reader.integer("max_position_embeddings", 131072, 1, largest_position);
  parse_heads(reader, config);
  parse_experts(reader, config);
  parse_layers(reader, config);
  parse_padding(reader, config);
  config.rope = parse_rope(reader, config.max_position);
  refuse_unknown_keys(reader);
  if (count_parameters(config) > largest_model) {
    fail(ErrorKind::config,
         "{}: the sizes amount to {:.1e} parameters (no model has so many, so a number is wrong)",
         origin, count_parameters(config));
  }
  return config;
}

std::int64_t num_parameters(const ModelConfig& config) {
  return static_cast<std::int64_t>(count_parameters(config));
}

std::string describe(const ModelConfig& config) {
  const double parameters = count_parameters(config);
  const std::string amount = parameters >= 1e9   ? fmt::format("{:.2f} B", parameters / 1e9)
                             : parameters >= 1e6 ? fmt::format("{:.2f} M", parameters / 1e6)
                                                 : fmt::format("{:.0f}", parameters);
  return fmt::format("{}, {} layers, hidden {}, {} experts (top {}), {} parameters", config.family,
                     config.num_layers, config.hidden_size, config.num_experts, config.top_k,
                     amount);
}

}  // namespace tessera::model
