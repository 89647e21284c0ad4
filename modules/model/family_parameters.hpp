// SPDX-License-Identifier: Apache-2.0
// The words of the family maps' parameter tables: symbols for sizes, conditions, and the counts
// that follow from them.
#pragma once

#include <cstdint>
#include <string>

#include "family.hpp"

namespace tessera::model {

/// Throws std::invalid_argument for a symbol or condition that is none. local.
void check_words(const ParameterTemplate& parameter);

/// Value of a symbol of `shape` or `rows`. @pre check_words() passed. local.
std::int64_t size_of_symbol(const std::string& symbol, const ModelConfig& config);

/// Whether a layer with or without experts has this parameter; embedding and head pass false.
/// local.
bool is_present(const ParameterTemplate& parameter, const ModelConfig& config,
                bool layer_has_experts);

struct ParameterCount {
  double total = 0.0;    ///< exact up to 2^53, and no size overflows
  double experts = 0.0;  ///< of these in experts
};
/// From the tables alone, without making a unit. local.
ParameterCount count_parameters(const Family& family, const ModelConfig& config);

}  // namespace tessera::model
