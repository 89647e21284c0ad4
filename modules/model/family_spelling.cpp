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
  if (value.is_number()) return value.get<double>();
  fail(ErrorKind::config, "{}: {} must be a number but is of type {}", exported_name, key,
       value.type_name());
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
                         {"initial_context_length", take(rest, "initial_context_length", 4096)}};
  const double context = number(config["initial_context_length"], "initial_context_length");
  const ordered_json factor = take(rest, "rope_scaling_factor", 32.0);
  const double positions = context * number(factor, "rope_scaling_factor");
  if (!(positions >= 1.0 && positions <= 1e12)) {
    fail(ErrorKind::config, "{}: rope_scaling_factor times initial_context_length is {}",
         exported_name, positions);
  }
  config["max_position_embeddings"] = static_cast<std::int64_t>(positions);
  config["rope_scaling"] = {{"rope_type", "yarn"},
                            {"factor", factor},
                            {"beta_fast", take(rest, "rope_ntk_beta", 32.0)},
                            {"beta_slow", take(rest, "rope_ntk_alpha", 1.0)},
                            {"truncate", false},
                            {"original_max_position_embeddings", config["initial_context_length"]}};
  config["attention_bias"] = true;
  config["hidden_act"] = "silu";
  config["rms_norm_eps"] = 1e-5;
  config["tie_word_embeddings"] = false;
  config["torch_dtype"] = "bfloat16";
  config.update(rest);
  return config.dump(2) + "\n";
}

std::string hugging_face_config(const std::string& json_text, bool mxfp4) {
  const nlohmann::json parsed = parse_object(json_text, exported_name);
  const bool is_original = is_original_spelling(parsed);
  const std::string text = is_original ? from_original_spelling(json_text) : json_text;
  ordered_json config = ordered_json::parse(text);
  const std::string model_type = config.value("model_type", "");
  if (mxfp4 && !find_family(model_type, "model_type").may_be_mxfp4()) {
    fail(ErrorKind::usage, "experts of {} cannot be written as MXFP4 (its readers do not know it)",
         model_type);
  }
  return set_quantization(config, mxfp4) ? config.dump(2) + "\n" : text;
}

}  // namespace tessera::model
