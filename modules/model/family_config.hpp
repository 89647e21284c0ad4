// SPDX-License-Identifier: Apache-2.0
// The parts of parse_config: each fills its fields of ModelConfig from the keys that the family
// reads, and throws Error::config naming the key. local.
#pragma once

#include <cstdint>

#include "family_reader.hpp"
#include "tessera/model/config.hpp"

namespace tessera::model {

// Bounds on what a file may ask for: far beyond any model, small enough that no product overflows
// and no garbage number becomes an allocation.
inline constexpr std::int64_t largest_size = std::int64_t{1} << 24;
inline constexpr std::int64_t largest_count = std::int64_t{1} << 16;
inline constexpr std::int64_t largest_position = std::int64_t{1} << 40;

/// FamilyReader::integer within these bounds.
inline std::int64_t read_size(FamilyReader& reader, const char* key, std::int64_t none = 0) {
  return reader.integer(key, none, 1, largest_size);
}
inline std::int64_t read_count(FamilyReader& reader, const char* key, std::int64_t none = 0,
                               std::int64_t lowest = 1) {
  return reader.integer(key, none, lowest, largest_count);
}

/// Heads, rotation and scale. @pre hidden_size and max_position are filled.
void parse_attention(FamilyReader& reader, ModelConfig& config);
/// layer_window. @pre num_layers is filled.
void parse_windows(FamilyReader& reader, ModelConfig& config);
/// Experts, router, dense MLPs and which layer has which. @pre num_layers is filled.
void parse_mlp(FamilyReader& reader, ModelConfig& config);

}  // namespace tessera::model
