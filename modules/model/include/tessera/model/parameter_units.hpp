// SPDX-License-Identifier: Apache-2.0
// The parameters of a model, grouped into the units that ZeRO-3 gathers together.
#pragma once

#include <string>
#include <vector>

#include "base/parameter.hpp"
#include "comm/process_grid.hpp"
#include "tessera/model/config.hpp"
#include "tessera/zero3/unit.hpp"

namespace tessera::model {

/// A unit without a grid: names and shapes alone.
struct ParameterUnit {
  std::string name;  ///< "embedding", "layers.3", "layers.3.expert", "head"
  bool is_expert = false;
  std::vector<Parameter> parameters;
};

/// Units in the order of forward: embedding, then for each layer its dense and its expert unit,
/// then head. Names are those of the Hugging Face checkpoint. local.
std::vector<ParameterUnit> parameter_units(const ModelConfig& config);

/// All parameters of all units, in the same order. local.
std::vector<Parameter> all_parameters(const std::vector<ParameterUnit>& units);

/// The same units placed on a grid: dense over world, experts over replica. local.
std::vector<zero3::UnitSpec> place_units(const comm::ProcessGrid& grid, const ModelConfig& config,
                                         std::vector<ParameterUnit> units);

/// Positions in the unit list.
struct UnitIndex {
  static constexpr std::size_t embedding = 0;
  static std::size_t dense(std::int64_t layer) { return static_cast<std::size_t>(1 + 2 * layer); }
  static std::size_t expert(std::int64_t layer) { return static_cast<std::size_t>(2 + 2 * layer); }
  static std::size_t head(std::int64_t num_layers) {
    return static_cast<std::size_t>(1 + 2 * num_layers);
  }
};

}  // namespace tessera::model
