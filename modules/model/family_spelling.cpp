// SPDX-License-Identifier: Apache-2.0
// The spellings of config.json, and the one that is exported.
#include "family_spelling.hpp"

#include "base/error.hpp"
#include "config_reader.hpp"
#include "family.hpp"

namespace tessera::model {

using nlohmann::ordered_json;

namespace {

constexpr const char* exported_name = "config.json";

/// Removes the key and returns its value, or `fallback` where it is absent.
ordered_json take(ordered_json& object, const char* key, const ordered_json& fallback) {
  const auto found = object.find(key);
  if (found == object.end()) return fallback;
  ordered_json value = *found;
  object.erase(key);
  return value;
}

double number(const ordered_json& value, const char* key) {
  const double result = value.is_number() ? value.get<double>() : 0.0;
  if (!(result >= 1.0 && result <= 1e9)) {
    fail(ErrorKind::config, "{}: {} is {} but must be a number between 1 and 1e9", exported_name,
         key, value.dump());
  }
  return result;
}

/// Positions that the scaled embedding reaches.
std::int64_t num_positions(const ordered_json& context, const ordered_json& factor) {
  return static_cast<std::int64_t>(number(context, "initial_context_length") *
                                   number(factor, "rope_scaling_factor"));
}

/// As quantization_config of the released gpt-oss: only expert weights are packed.
ordered_json mxfp4_quantization() {
  return {
      {"quant_method", "mxfp4"},
      {"modules_to_not_convert",
       {"model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"}}};
}

bool is_mxfp4(const ordered_json& config) {
  const auto found = config.find("quantization_config");
  return found != config.end() && found->is_object() &&
         found->value("quant_method", ordered_json()) == "mxfp4";
}

/// Whether `config` had to be changed.
bool set_quantization(ordered_json& config, bool mxfp4) {
  if (mxfp4) {
    if (is_mxfp4(config)) return false;
    config["quantization_config"] = mxfp4_quantization();
    return true;
  }
  if (!config.contains("quantization_config")) return false;
  config.erase("quantization_config");
  return true;
}

}  // namespace

bool is_original_spelling(const nlohmann::json& config) {
  return !config.contains("model_type") &&
         (config.contains("experts_per_token") || config.contains("rope_ntk_beta"));
}

std::string from_original_spelling(const std::string& json_text) {
  ordered_json rest = ordered_json::parse(json_text);
  ordered_json config = {{"architectures", {"GptOssForCausalLM"}},
                         {"model_type", "gpt_oss"},
                         {"num_local_experts", take(rest, "num_experts", 128)},
                         {"num_experts_per_tok", take(rest, "experts_per_token", 4)},
                         {"initial_context_length", take(rest, "initial_context_length", 4096)},
                         {"rope_scaling",
                          {{"rope_type", "yarn"},
                           {"factor", take(rest, "rope_scaling_factor", 32.0)},
                           {"beta_fast", take(rest, "rope_ntk_beta", 32.0)},
                           {"beta_slow", take(rest, "rope_ntk_alpha", 1.0)},
                           {"truncate", false}}},
                         {"attention_bias", true},
                         {"hidden_act", "silu"},
                         {"rms_norm_eps", 1e-5},
                         {"tie_word_embeddings", false},
                         {"torch_dtype", "bfloat16"}};
  config["rope_scaling"]["original_max_position_embeddings"] = config["initial_context_length"];
  config["max_position_embeddings"] =
      num_positions(config["initial_context_length"], config["rope_scaling"]["factor"]);
  for (const auto& [key, value] : rest.items()) {
    if (config.contains(key)) {
      fail(ErrorKind::config,
           "{}: {} beside the original spelling of gpt-oss, which has no such key; add model_type "
           "if this is transformers' spelling",
           exported_name, key);
    }
  }
  config.update(rest);
  return config.dump(2) + "\n";
}

std::string hugging_face_config(const std::string& json_text, bool mxfp4) {
  const std::string family = parse_config(json_text, exported_name).family;
  if (mxfp4 && !find_family(family, "model_type").may_be_mxfp4()) {
    fail(ErrorKind::usage, "experts of {} cannot be written as MXFP4 (its readers do not know it)",
         family);
  }
  const bool is_original = is_original_spelling(parse_object(json_text, exported_name));
  const std::string text = is_original ? from_original_spelling(json_text) : json_text;
  ordered_json config = ordered_json::parse(text);
  return set_quantization(config, mxfp4) ? config.dump(2) + "\n" : text;
}

}  // namespace tessera::model
