// SPDX-License-Identifier: Apache-2.0
// config.json of all families: what their maps say is read, every key either understood, known to
// be harmless or refused by name.
#include "tessera/model/config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "family_config.hpp"
#include "family_parameters.hpp"
#include "family_spelling.hpp"

namespace tessera::model {

namespace {

constexpr double largest_model = 1e14;  // parameters

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

void parse_padding(FamilyReader& reader, ModelConfig& config) {
  // As torch's Embedding: counted from the end where negative.
  const std::int64_t none = config.vocab_size;
  const std::int64_t id =
      reader.integer("pad_token_id", none, -config.vocab_size, config.vocab_size - 1);
  config.padding_id = id == none ? -1 : id < 0 ? id + config.vocab_size : id;
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
  config.vocab_size = read_size(reader, "vocab_size");
  config.hidden_size = read_size(reader, "hidden_size");
  config.num_layers = read_count(reader, "num_hidden_layers");
  config.rms_norm_epsilon = reader.number("rms_norm_eps", 0.0, 1e-30, 1.0);
  config.tied_embeddings = reader.boolean("tie_word_embeddings", false);
  config.initializer_range = reader.number("initializer_range", 0.0, 0.0, 1e6);
  config.max_position = reader.integer("max_position_embeddings", 0, 1, largest_position);
  parse_attention(reader, config);
  parse_mlp(reader, config);
  parse_windows(reader, config);
  parse_padding(reader, config);
  reader.refuse_unknown();
  return config;
}

/// TESSERA_VOCABULARY_CHUNK; empty where it is not set.
std::optional<std::int64_t> wanted_vocabulary_chunk() {
  const char* variable = std::getenv("TESSERA_VOCABULARY_CHUNK");
  if (variable == nullptr || *variable == '\0') return std::nullopt;
  const std::string_view text(variable);
  std::int64_t rows = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rows);
  if (error != std::errc() || end != text.data() + text.size() || rows < 0) {
    fail(ErrorKind::usage,
         "TESSERA_VOCABULARY_CHUNK is '{}' (it is how many rows of the vocabulary matrices are "
         "gathered at a time); give a whole number, 0 for all rows, or leave it unset",
         text);
  }
  return rows;
}

/// In chunks the head computes its logits twice, once for the loss and once for the gradient, so
/// only matrices are cut whose gradient would take more than half a GiB. Chunks begin at whole
/// blocks of the flat layout, which are whole blocks of a fingerprint, too.
std::int64_t vocabulary_chunk(const ModelConfig& config) {
  constexpr std::int64_t block = 64, largest_whole_bytes = 512 << 20, chunk_bytes = 128 << 20;
  const std::int64_t row_bytes = config.hidden_size * std::int64_t{sizeof(float)};
  const bool is_large = config.vocab_size * row_bytes > largest_whole_bytes;
  std::int64_t rows = is_large ? chunk_bytes / row_bytes : config.vocab_size;
  if (const auto wanted = wanted_vocabulary_chunk()) {
    rows = *wanted > 0 ? *wanted : config.vocab_size;
  }
  if (rows >= config.vocab_size) return 0;
  const std::int64_t block_rows = block / std::gcd(block, config.hidden_size);
  rows = std::max(rows / block_rows, std::int64_t{1}) * block_rows;
  return rows < config.vocab_size ? rows : 0;
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
  const std::string type = reader.text("model_type", ""), key = reader.name("model_type");
  const Family& family = find_family(type, key);
  ModelConfig config = parse_family(reader, family);
  require_plausible(family, config, origin);
  config.vocabulary_chunk = vocabulary_chunk(config);
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
