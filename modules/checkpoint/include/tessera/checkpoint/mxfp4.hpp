// SPDX-License-Identifier: Apache-2.0
// MXFP4 (OCP Microscaling Formats 1.0, section 5): blocks of 32 E2M1 codes along the input
// dimension with one E8M0 scale, as gpt-oss is released. value = table[code] * 2^(scale - 127).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace tessera::checkpoint {

inline constexpr std::int64_t mxfp4_block_elements = 32;
inline constexpr std::int64_t mxfp4_block_bytes = 16;  ///< low nibble = even element
/// Scales from here on overflow bf16 (253, 254) or mean NaN (255); they are refused.
inline constexpr std::uint8_t mxfp4_first_refused_scale = 253;

/// The original scales of this rank's slice of a parameter, one per block of 32 elements, by
/// parameter name. Slices begin and end on block boundaries.
using ScaleShards = std::map<std::string, std::vector<std::uint8_t>>;

/// blocks [n * 16] bytes, scales [n] -> values [n * 32] f32, exact. @pre no refused scale. local.
void mxfp4_decode(std::span<const std::uint8_t> blocks, std::span<const std::uint8_t> scales,
                  std::span<float> values);

/// values [n * 32] -> blocks [n * 16], scales [n]. A block whose values its `old_scales` entry
/// reproduces exactly (the sign of zero included; a block of zeros: any entry) is written with that
/// scale; any other, or all where `old_scales` is empty, by the rule: scale = 127 +
/// floor(log2(largest |value|)) - 2, kept within [0, 252] (0 for a block of zeros), codes to
/// nearest, ties to the even code, saturated at 6; the sign of zero is kept. Throws Error::numeric
/// for a value that is not finite. local.
void mxfp4_encode(std::span<const float> values, std::span<const std::uint8_t> old_scales,
                  std::span<std::uint8_t> blocks, std::span<std::uint8_t> scales);

/// Index of the first scale that is refused, or -1. local.
std::int64_t first_refused_scale(std::span<const std::uint8_t> scales);

}  // namespace tessera::checkpoint
