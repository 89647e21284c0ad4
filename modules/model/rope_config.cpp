// SPDX-License-Identifier: Apache-2.0
// Rotary embedding parameters as transformers' convert_rope_params_to_dict, standardize_rope_params
// and _compute_yarn_parameters read them.
#include "rope_config.hpp"

#include <cmath>
#include <string>

#include "base/error.hpp"
#include "family_config.hpp"

namespace tessera::model {

namespace {

constexpr double largest_number = 1e12;

double positive(ConfigReader& reader, const char* key, double fallback) {
  const double value = reader.number(key, fallback, 0.0, largest_number);
  if (value <= 0.0) {
    fail(ErrorKind::config, "{} must be positive", reader.name(key));
  }
  return value;
}

/// transformers takes null and 0 for "not given".
double optional_number(ConfigReader& reader, const char* key, double fallback) {
  const double value = reader.has(key) ? reader.number(key, 0.0, 0.0, largest_number) : 0.0;
  return value == 0.0 ? fallback : value;
}

RopeVariant parse_variant(ConfigReader& reader) {
  if (reader.contains("rope_type") && reader.contains("type") &&
      reader.text("rope_type", "") != reader.text("type", "")) {
    fail(ErrorKind::config,
         "{} is '{}' but type is '{}' (two spellings of one parameter must agree)",
         reader.name("rope_type"), reader.text("rope_type", ""), reader.text("type", ""));
  }
  const char* key = reader.contains("rope_type") ? "rope_type" : "type";
  const std::string type = reader.text(key, "default");
  if (type == "default") return RopeVariant::plain;
  if (type == "linear") return RopeVariant::linear;
  if (type == "llama3") return RopeVariant::llama3;
  if (type == "yarn") return RopeVariant::yarn;
  const char* reason = type == "dynamic" || type == "longrope"
                           ? "its frequencies depend on the longest sequence seen, so training "
                             "would not be reproducible"
                           : "another scaling gives other positions";
  fail(ErrorKind::config,
       "{} '{}' is not implemented ({}); 'default', 'linear', 'llama3' and 'yarn' are",
       reader.name(key), type, reason);
}

double parse_factor(ConfigReader& reader, std::int64_t max_position, std::int64_t original) {
  if (reader.is_null("factor")) {
    return static_cast<double>(max_position) / static_cast<double>(original);
  }
  reader.value("factor");
  return positive(reader, "factor", 1.0);
}

void parse_yarn(ConfigReader& reader, std::int64_t max_position, RopeConfig& rope) {
  rope.original_max_position =
      reader.integer("original_max_position_embeddings", max_position, 1, largest_position);
  rope.factor = parse_factor(reader, max_position, rope.original_max_position);
  rope.beta_fast = optional_number(reader, "beta_fast", 32.0);
  rope.beta_slow = optional_number(reader, "beta_slow", 1.0);
  rope.truncate = reader.boolean("truncate", true);
  rope.attention_factor =
      reader.has("attention_factor") ? positive(reader, "attention_factor", 1.0) : 0.0;
  rope.mscale = optional_number(reader, "mscale", 0.0);
  rope.mscale_all_dim = optional_number(reader, "mscale_all_dim", 0.0);
  if (rope.theta <= 1.0) {
    fail(ErrorKind::config, "{} is {} but YaRN needs more than 1 (it divides by the logarithm)",
         reader.name("rope_theta"), rope.theta);
  }
}

void parse_llama3(ConfigReader& reader, std::int64_t max_position, RopeConfig& rope) {
  rope.original_max_position =
      reader.integer("original_max_position_embeddings", max_position, 1, largest_position);
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor"}) reader.value(key);
  rope.factor = positive(reader, "factor", 1.0);
  rope.low_frequency_factor = positive(reader, "low_freq_factor", 1.0);
  rope.high_frequency_factor = positive(reader, "high_freq_factor", 1.0);
  if (rope.high_frequency_factor <= rope.low_frequency_factor) {
    fail(ErrorKind::config, "{} is {} but must be more than low_freq_factor {}",
         reader.name("high_freq_factor"), rope.high_frequency_factor, rope.low_frequency_factor);
  }
}

void require_full_rotation(ConfigReader& reader) {
  if (reader.has("partial_rotary_factor") &&
      reader.number("partial_rotary_factor", 1.0, 0.0, 1.0) != 1.0) {
    fail(ErrorKind::config,
         "{} other than 1 is not implemented (part of each head would not rotate)",
         reader.name("partial_rotary_factor"));
  }
  reader.contains("partial_rotary_factor");
}

RopeConfig parse_one_spelling(const nlohmann::json& object, const std::string& origin,
                              const char* spelling, double theta, std::int64_t max_position) {
  ConfigReader reader(object, origin, std::string(spelling) + ".");
  RopeConfig rope;
  rope.variant = parse_variant(reader);
  rope.theta = reader.has("rope_theta") ? positive(reader, "rope_theta", theta) : theta;
  if (rope.variant == RopeVariant::yarn) {
    parse_yarn(reader, max_position, rope);
  } else if (rope.variant == RopeVariant::llama3) {
    parse_llama3(reader, max_position, rope);
  } else if (rope.variant == RopeVariant::linear) {
    reader.value("factor");
    rope.factor = positive(reader, "factor", 1.0);
  }
  require_full_rotation(reader);
  reader.refuse_unknown({});
  return rope;
}

void require_same(const std::string& origin, const char* key, double in_parameters,
                  double in_scaling) {
  if (in_parameters != in_scaling) {
    fail(ErrorKind::config,
         "{}: {} is {} in rope_parameters but {} in rope_theta and rope_scaling (two spellings of "
         "one parameter must agree); correct or remove one",
         origin, key, in_parameters, in_scaling);
  }
}

void require_agreement(const std::string& origin, const RopeConfig& parameters,
                       const RopeConfig& scaling) {
  require_same(origin, "rope_type (0 default, 1 linear, 2 llama3, 3 yarn)",
               static_cast<double>(parameters.variant), static_cast<double>(scaling.variant));
  require_same(origin, "rope_theta", parameters.theta, scaling.theta);
  require_same(origin, "factor", parameters.factor, scaling.factor);
  require_same(origin, "beta_fast", parameters.beta_fast, scaling.beta_fast);
  require_same(origin, "beta_slow", parameters.beta_slow, scaling.beta_slow);
  require_same(origin, "original_max_position_embeddings",
               static_cast<double>(parameters.original_max_position),
               static_cast<double>(scaling.original_max_position));
  require_same(origin, "truncate", parameters.truncate, scaling.truncate);
  require_same(origin, "attention_factor", parameters.attention_factor, scaling.attention_factor);
  require_same(origin, "mscale", parameters.mscale, scaling.mscale);
  require_same(origin, "mscale_all_dim", parameters.mscale_all_dim, scaling.mscale_all_dim);
  require_same(origin, "low_freq_factor", parameters.low_frequency_factor,
               scaling.low_frequency_factor);
  require_same(origin, "high_freq_factor", parameters.high_frequency_factor,
               scaling.high_frequency_factor);
}

/// transformers lets the top-level key win, so a file in which they differ is not what it seems.
void require_same_original(ConfigReader& config, const RopeConfig& rope) {
  const char* key = "original_max_position_embeddings";
  const bool is_used = rope.variant == RopeVariant::yarn || rope.variant == RopeVariant::llama3;
  if (is_used && config.has(key)) {
    require_same(config.origin(), key, static_cast<double>(rope.original_max_position),
                 static_cast<double>(config.integer(key, 0, 1, largest_position)));
  }
}

}  // namespace

RopeConfig parse_rope(FamilyReader& reader, std::int64_t max_position) {
  ConfigReader& config = reader.config();
  const nlohmann::json& defaults = reader.family().defaults;
  const bool has_theta = config.has("rope_theta");
  const double theta =
      has_theta ? positive(config, "rope_theta", 0.0) : defaults.at("rope_theta").get<double>();
  const nlohmann::json* parameters = config.object("rope_parameters");
  const nlohmann::json* scaling = config.object("rope_scaling");
  if (scaling != nullptr && scaling->empty()) scaling = nullptr;  // as transformers takes it
  const nlohmann::json fallback = defaults.value("rope_parameters", nlohmann::json::object());

  const nlohmann::json& chosen = parameters != nullptr ? *parameters
                                 : scaling != nullptr  ? *scaling
                                                       : fallback;
  RopeConfig rope = parse_one_spelling(
      chosen, config.origin(),
      scaling != nullptr && parameters == nullptr ? "rope_scaling" : "rope_parameters", theta,
      max_position);
  if (parameters != nullptr && has_theta) {
    require_same(config.origin(), "rope_theta", rope.theta, theta);
  }
  if (parameters != nullptr && scaling != nullptr) {
    require_agreement(
        config.origin(), rope,
        parse_one_spelling(*scaling, config.origin(), "rope_scaling", theta, max_position));
  }
  require_full_rotation(config);
  require_same_original(config, rope);
  rope.interleaved = reader.boolean("rope_interleave", false);
  return rope;
}

}  // namespace tessera::model
