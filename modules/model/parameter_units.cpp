// SPDX-License-Identifier: Apache-2.0
// The family's parameter tables, filled in with a model's sizes.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tessera/model/parameter_units.hpp>

#include "base/error.hpp"
#include "family_parameters.hpp"

namespace tessera::model {
namespace {

/// Layers after the last for which {beyond} stands: a checkpoint's prediction layers.
constexpr std::int64_t num_layers_beyond = 8;

std::string fill(std::string text, const std::string& word, std::int64_t value) {
  const auto found = text.find(word);
  return found == std::string::npos ? text
                                    : text.replace(found, word.size(), fmt::to_string(value));
}

/// One table of a family for one layer, embedding or head.
class TableReader {
 public:
  TableReader(const Family& family, const ModelConfig& config, Naming naming)
      : family_(family), config_(config), is_original_(naming == Naming::original) {
    if (is_original_ && family.original_layer_prefix.empty()) {
      fail(ErrorKind::config, "{} has no original names beside those of Hugging Face",
           family.model_type);
    }
  }

  ParameterUnit unit(std::string name, const std::vector<ParameterTemplate>& table,
                     bool is_expert) const {
    return unit(std::move(name), table, is_expert, false, "", "");
  }

  ParameterUnit layer_unit(std::string name, const std::vector<ParameterTemplate>& table,
                           bool is_expert, std::int64_t layer) const {
    return unit(std::move(name), table, is_expert,
                config_.layer_has_experts[static_cast<std::size_t>(layer)],
                fill(family_.layer_prefix, "{layer}", layer),
                fill(family_.original_layer_prefix, "{layer}", layer));
  }

 private:
  ParameterUnit unit(std::string name, const std::vector<ParameterTemplate>& table, bool is_expert,
                     bool layer_has_experts, const std::string& prefix,
                     const std::string& original_prefix) const {
    ParameterUnit unit{std::move(name), is_expert, {}};
    for (const ParameterTemplate& entry : table) {
      if (is_present(entry, config_, layer_has_experts)) {
        unit.parameters.push_back(parameter(entry, is_expert, prefix, original_prefix));
      }
    }
    return unit;
  }

  Parameter parameter(const ParameterTemplate& entry, bool is_expert, const std::string& prefix,
                      const std::string& original_prefix) const {
    Parameter result{prefix + entry.name, {}};
    for (const std::string& symbol : entry.shape) {
      result.shape.push_back(size_of_symbol(symbol, config_));
    }
    result.is_expert = is_expert;
    result.transposed = entry.transposed && !is_original_;
    result.weight_decay = result.shape.size() > (is_expert ? 2 : 1) && !entry.buffer;
    result.trainable = !entry.buffer;
    result.may_be_mxfp4 = entry.mxfp4;
    result.stored = is_original_ ? original_part(entry, original_prefix, result)
                                 : stored_parts(entry, prefix, result);
    return result;
  }

  /// Equal runs of each expert, in the order of the parameter; or the whole under another name.
  static std::vector<StoredPart> stored_parts(const ParameterTemplate& entry,
                                              const std::string& prefix,
                                              const Parameter& parameter) {
    if (entry.stored.empty()) return {};
    if (entry.stored[0].find("{expert}") == std::string::npos) {
      return {{prefix + entry.stored[0], parameter.checkpoint_shape(), 0, parameter.size(), 0}};
    }
    Shape shape(parameter.shape.begin() + 1, parameter.shape.end());
    shape[0] /= std::ssize(entry.stored);
    std::vector<StoredPart> parts;
    for (std::int64_t expert = 0; expert < parameter.shape[0]; ++expert) {
      for (const std::string& name : entry.stored) {
        parts.push_back({fill(prefix + name, "{expert}", expert), shape,
                         std::ssize(parts) * num_elements(shape), num_elements(shape), 0});
      }
    }
    return parts;
  }

  /// A run of rows of the tensor that fuses several parameters, or all of one.
  std::vector<StoredPart> original_part(const ParameterTemplate& entry, const std::string& prefix,
                                        const Parameter& parameter) const {
    Shape shape = parameter.shape;
    std::int64_t rows = 0, first_row = 0;
    for (std::size_t part = 0; part < entry.rows.size(); ++part) {
      if (part == entry.part) first_row = rows;
      rows += size_of_symbol(entry.rows[part], config_);
    }
    if (rows != 0) shape[0] = rows;
    return {{prefix + entry.original, shape, 0, parameter.size(),
             first_row * (parameter.size() / parameter.shape[0])}};
  }

  const Family& family_;
  const ModelConfig& config_;
  bool is_original_;
};

std::int64_t chunks_of_vocabulary(const ModelConfig& config) {
  if (config.vocabulary_chunk == 0) return 1;
  return (config.vocab_size + config.vocabulary_chunk - 1) / config.vocabulary_chunk;
}

const Family& family_of(const ModelConfig& config) { return find_family(config.family, "family"); }

}  // namespace

std::vector<ParameterUnit> parameter_units(const ModelConfig& config, Naming naming) {
  const Family& family = family_of(config);
  const TableReader reader(family, config, naming);
  std::vector<ParameterUnit> units;
  units.push_back(reader.unit("embedding", family.embedding, false));
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string name = "layers." + std::to_string(layer);
    units.push_back(reader.layer_unit(name, family.layer, false, layer));
    if (config.layer_has_experts[static_cast<std::size_t>(layer)]) {
      units.push_back(reader.layer_unit(name + ".expert", family.expert, true, layer));
    }
  }
  units.push_back(reader.unit("head", family.head, false));
  return units;
}

Naming detect_naming(const ModelConfig& config, const std::vector<std::string>& tensor_names) {
  if (family_of(config).original_layer_prefix.empty()) return Naming::hugging_face;
  const std::set<std::string> names(tensor_names.begin(), tensor_names.end());
  const auto num_found = [&](Naming naming) {
    std::int64_t found = 0;
    for (const Parameter& parameter : all_parameters(parameter_units(config, naming))) {
      for (const StoredPart& part : parameter.stored_parts()) found += names.count(part.tensor);
    }
    return found;
  };
  return num_found(Naming::original) > num_found(Naming::hugging_face) ? Naming::original
                                                                       : Naming::hugging_face;
}

std::vector<ParameterUnit> in_vocabulary_chunks(const ModelConfig& config,
                                                std::vector<ParameterUnit> units) {
  if (chunks_of_vocabulary(config) == 1) return units;
  std::vector<ParameterUnit> result;
  const auto push_chunks = [&](const std::string& name, const Parameter& parameter) {
    for (std::int64_t begin = 0; begin < config.vocab_size; begin += config.vocabulary_chunk) {
      const std::int64_t end = std::min(begin + config.vocabulary_chunk, config.vocab_size);
      result.push_back({fmt::format("{}.rows {}", name, begin), false, {parameter}, {begin, end}});
    }
  };
  for (ParameterUnit& unit : units) {
    for (auto it = unit.parameters.begin(); it != unit.parameters.end();) {
      const bool has_vocabulary = it->shape == Shape{config.vocab_size, config.hidden_size} &&
                                  (&unit == &units.front() || &unit == &units.back());
      if (has_vocabulary) push_chunks(unit.name, *it);
      it = has_vocabulary ? unit.parameters.erase(it) : std::next(it);
    }
    if (!unit.parameters.empty()) result.push_back(std::move(unit));
  }
  return result;
}

std::vector<Parameter> all_parameters(const std::vector<ParameterUnit>& units) {
  std::vector<Parameter> all;
  for (const ParameterUnit& unit : units) {
    if (unit.rows.begin > 0) continue;  // its parameter came with its first rows
    all.insert(all.end(), unit.parameters.begin(), unit.parameters.end());
  }
  return all;
}

std::vector<std::string> ignored_tensors(const ModelConfig& config) {
  std::vector<std::string> patterns;
  for (const std::string& pattern : family_of(config).ignored) {
    const bool is_layer = pattern.find("{beyond}") != std::string::npos;
    for (std::int64_t beyond = 0; beyond < (is_layer ? num_layers_beyond : 1); ++beyond) {
      patterns.push_back(fill(pattern, "{beyond}", config.num_layers + beyond));
    }
  }
  // With n_shared_experts = 0 transformers has shared experts of no width, and saves them.
  if (config.num_experts > 0 && config.shared_intermediate_size == 0) {
    patterns.push_back("*.mlp.shared_experts.*");
  }
  return patterns;
}

std::vector<std::string> tied_tensors(const ModelConfig& config) {
  if (!config.tied_embeddings) return {};
  ModelConfig untied = config;
  untied.tied_embeddings = false;
  std::vector<std::string> names;
  for (const ParameterTemplate& entry : family_of(config).head) {
    if (is_present(entry, untied, false) && !is_present(entry, config, false)) {
      names.push_back(entry.name);
    }
  }
  return names;
}

std::vector<zero3::UnitSpec> place_units(const comm::ProcessGrid& grid, const ModelConfig& config,
                                         std::vector<ParameterUnit> units) {
  std::vector<zero3::UnitSpec> specs;
  for (ParameterUnit& unit : units) {
    specs.push_back({std::move(unit.name), std::move(unit.parameters),
                     unit.is_expert ? zero3::Placement::expert(grid, config.num_experts)
                                    : zero3::Placement::dense(grid),
                     unit.rows});
  }
  return specs;
}

UnitIndex::UnitIndex(const ModelConfig& config) {
  num_chunks_ = chunks_of_vocabulary(config);
  std::size_t next = embedding + static_cast<std::size_t>(num_chunks_);
  for (const bool has_experts : config.layer_has_experts) {
    dense_.push_back(next);
    next += has_experts ? 2 : 1;
  }
  if (num_chunks_ > 1 && !config.tied_embeddings) {
    first_head_chunk_ = next;
    next += static_cast<std::size_t>(num_chunks_);
  }
  head_ = next;
}

}  // namespace tessera::model
