// SPDX-License-Identifier: Apache-2.0
// Reads the family maps: TOML to JSON, then each table into its struct. A map with a word that is
// not known is refused, so that a misspelt one cannot be overlooked.
#include "family.hpp"

#include <algorithm>
#include <initializer_list>
#include <sstream>

#include "base/error.hpp"
#include "base/toml.hpp"
#include "family_parameters.hpp"

namespace tessera::model {

using nlohmann::json;

namespace {

/// Throws std::invalid_argument for a key of `table` that is not among `known`.
void require_known(const json& table, std::initializer_list<const char*> known) {
  for (const auto& [key, value] : table.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw std::invalid_argument("unknown key '" + key + "'");
    }
  }
}

template <class Value>
Value choose(const json& table, const char* key,
             std::initializer_list<std::pair<const char*, Value>> choices) {
  for (const auto& [name, value] : choices) {
    if (table.at(key) == name) return value;
  }
  throw std::invalid_argument(std::string(key) + " has no choice " + table.at(key).dump());
}

void read_mathematics(const json& table, Family& family) {
  require_known(table, {"attention", "query_key_norm", "sliding_layers", "activation", "router",
                        "router_score", "correction_bias", "aux_loss"});
  family.has_latent_attention =
      choose<bool>(table, "attention", {{"grouped", false}, {"latent", true}});
  family.query_key_norm = choose<QueryKeyNorm>(table, "query_key_norm",
                                               {{"none", QueryKeyNorm::none},
                                                {"head", QueryKeyNorm::head},
                                                {"projection", QueryKeyNorm::projection}});
  family.sliding_layers =
      choose<SlidingLayers>(table, "sliding_layers",
                            {{"none", SlidingLayers::none},
                             {"alternating", SlidingLayers::alternating},
                             {"all", SlidingLayers::all},
                             {"from_max_window_layers", SlidingLayers::from_max_window_layers}});
  family.activation =
      choose<kernel::Activation>(table, "activation",
                                 {{"swiglu", kernel::Activation::swiglu},
                                  {"clamped_swiglu", kernel::Activation::clamped_swiglu}});
  family.has_aux_loss = table.at("aux_loss").get<bool>();
  family.router = table.value("router", "");
  if (family.has_experts()) {
    family.router_score =
        choose<moe::RouterScore>(table, "router_score",
                                 {{"softmax_of_chosen", moe::RouterScore::softmax_of_chosen},
                                  {"softmax", moe::RouterScore::softmax},
                                  {"sigmoid", moe::RouterScore::sigmoid}});
    family.has_correction_bias = table.value("correction_bias", false);
  }
}

void read_keys(const json& table, Family& family) {
  require_known(table, {"optional", "harmless", "aliases", "repeats", "required"});
  family.optional = table.value("optional", std::set<std::string>());
  family.harmless = table.value("harmless", std::set<std::string>());
  family.aliases = table.value("aliases", std::map<std::string, std::string>());
  family.repeats = table.value("repeats", std::map<std::string, std::string>());
  family.required = table.value("required", json::object());
}

ParameterTemplate read_parameter(const json& table) {
  require_known(table, {"name", "shape", "when", "stored", "original", "rows", "part", "transposed",
                        "mxfp4", "buffer"});
  ParameterTemplate parameter;
  parameter.name = table.at("name").get<std::string>();
  parameter.shape = table.at("shape").get<std::vector<std::string>>();
  parameter.when = table.value("when", std::vector<std::string>());
  parameter.stored = table.value("stored", std::vector<std::string>());
  parameter.original = table.value("original", "");
  parameter.rows = table.value("rows", std::vector<std::string>());
  parameter.part = table.value("part", std::size_t{0});
  parameter.transposed = table.value("transposed", false);
  parameter.mxfp4 = table.value("mxfp4", false);
  parameter.buffer = table.value("buffer", false);
  check_words(parameter);
  return parameter;
}

std::vector<ParameterTemplate> read_parameters(const json& list) {
  std::vector<ParameterTemplate> parameters;
  for (const json& entry : list) parameters.push_back(read_parameter(entry));
  return parameters;
}

Family read_family(const json& map) {
  require_known(map, {"model_type", "architecture", "source", "mathematics", "defaults", "keys",
                      "checkpoint", "parameters"});
  Family family;
  family.model_type = map.at("model_type").get<std::string>();
  family.architecture = map.at("architecture").get<std::string>();
  read_mathematics(map.at("mathematics"), family);
  family.defaults = map.at("defaults");
  read_keys(map.at("keys"), family);

  const json& checkpoint = map.at("checkpoint");
  require_known(checkpoint, {"layer_prefix", "original_layer_prefix", "ignored"});
  family.layer_prefix = checkpoint.at("layer_prefix").get<std::string>();
  family.original_layer_prefix = checkpoint.value("original_layer_prefix", "");
  family.ignored = checkpoint.value("ignored", std::vector<std::string>());

  const json& parameters = map.at("parameters");
  require_known(parameters, {"embedding", "layer", "expert", "head"});
  family.embedding = read_parameters(parameters.at("embedding"));
  family.layer = read_parameters(parameters.at("layer"));
  family.expert = read_parameters(parameters.at("expert"));
  family.head = read_parameters(parameters.at("head"));
  return family;
}

json parse_toml(const char* text) {
  std::ostringstream as_json;
  const toml::table table = toml::parse(std::string_view(text));
  as_json << toml::json_formatter(table);
  return json::parse(as_json.str());
}

std::map<std::string, Family> read_families() {
  std::map<std::string, Family> all;
  for (const FamilyText& map : family_texts()) {
    try {
      Family family = read_family(parse_toml(map.text));
      all[family.model_type] = std::move(family);
    } catch (const std::exception& error) {
      fail(ErrorKind::internal, "share/families/{}: {}", map.file, error.what());
    }
  }
  return all;
}

}  // namespace

bool Family::may_be_mxfp4() const {
  return std::any_of(expert.begin(), expert.end(),
                     [](const ParameterTemplate& parameter) { return parameter.mxfp4; });
}

const std::map<std::string, Family>& families() {
  static const std::map<std::string, Family> all = read_families();
  return all;
}

const Family& find_family(const std::string& model_type, const std::string& name) {
  const auto found = families().find(model_type);
  if (found != families().end()) return found->second;
  std::string known;
  for (const auto& [type, family] : families()) known += (known.empty() ? "'" : ", '") + type + "'";
  fail(ErrorKind::config, "{} '{}' is not implemented; {} are", name, model_type, known);
}

}  // namespace tessera::model
