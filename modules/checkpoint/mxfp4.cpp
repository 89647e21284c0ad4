// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/mxfp4.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "base/contract.hpp"
#include "base/error.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::size_t block_elements = mxfp4_block_elements;
constexpr std::size_t block_bytes = mxfp4_block_bytes;
constexpr std::uint32_t magnitude_mask = 0x7fffffffu;
constexpr std::uint32_t first_not_finite = 0x7f800000u;

/// E2M1: sign, two bits of exponent, one of mantissa.
constexpr std::array<float, 16> code_values = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,
                                               4.0f,  6.0f,  -0.0f, -0.5f, -1.0f, -1.5f,
                                               -2.0f, -3.0f, -4.0f, -6.0f};

/// 2^(scale - 127); a subnormal number at scale 0, still exact. @pre scale <= 254.
float power(std::uint32_t scale) {
  return std::bit_cast<float>(scale == 0 ? 0x00400000u : scale << 23);
}

/// Codes of one block, one per element. Dividing by a power of two is exact here as far as it
/// decides a comparison: what underflows is far below the first threshold.
void choose_codes(const float* values, std::uint32_t scale, std::uint8_t* codes) {
  const float inverse = power(254 - scale);
  for (std::size_t k = 0; k < block_elements; ++k) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(values[k]);
    const float v = std::bit_cast<float>(bits & magnitude_mask) * inverse;
    // Halfway cases go to the even code: up to 2, 4, 6 (>=), down to 0, 2, 4, 6 (>).
    const int code = (v > 0.25f) + (v >= 0.75f) + (v > 1.25f) + (v >= 1.75f) + (v > 2.5f) +
                     (v >= 3.5f) + (v > 5.0f);
    codes[k] = static_cast<std::uint8_t>(std::uint32_t(code) | (bits >> 31) << 3);
  }
}

/// Whether the codes stand for exactly these values, sign of zero included.
bool reproduces(const float* values, std::uint32_t scale, const std::uint8_t* codes) {
  std::uint32_t differences = 0;
  for (std::size_t k = 0; k < block_elements; ++k) {
    const float decoded = code_values[codes[k]] * power(scale);
    differences |= std::bit_cast<std::uint32_t>(decoded) ^ std::bit_cast<std::uint32_t>(values[k]);
  }
  return differences == 0;
}

/// Bits of the largest magnitude: as integers they are ordered like the numbers, NaN last.
std::uint32_t largest_magnitude(const float* values) {
  std::uint32_t largest = 0;
  for (std::size_t k = 0; k < block_elements; ++k)
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[k]) & magnitude_mask);
  return largest;
}

/// 127 + floor(log2(largest)) - 2: the biased exponent of the number, less 2. Zero and subnormal
/// numbers end at scale 0; the largest float needs 252, so nothing is cut above.
std::uint8_t rule_scale(std::uint32_t largest) {
  const std::uint32_t biased_exponent = largest >> 23;
  return static_cast<std::uint8_t>(biased_exponent < 2 ? 0 : biased_exponent - 2);
}

void pack(const std::uint8_t* codes, std::uint8_t* block) {
  for (std::size_t k = 0; k < block_bytes; ++k)
    block[k] = static_cast<std::uint8_t>(codes[2 * k] | codes[2 * k + 1] << 4);
}

}  // namespace

void mxfp4_decode(std::span<const std::uint8_t> blocks, std::span<const std::uint8_t> scales,
                  std::span<float> values) {
  TESSERA_EXPECT(blocks.size() == scales.size() * block_bytes);
  TESSERA_EXPECT(values.size() == scales.size() * block_elements);
  for (std::size_t b = 0; b < scales.size(); ++b) {
    TESSERA_EXPECT(scales[b] < mxfp4_first_refused_scale);
    const float scale = power(scales[b]);
    for (std::size_t k = 0; k < block_bytes; ++k) {
      const std::uint8_t pair = blocks[b * block_bytes + k];
      float* to = values.data() + b * block_elements + 2 * k;
      to[0] = code_values[pair & 0xf] * scale;
      to[1] = code_values[pair >> 4] * scale;
    }
  }
}

void mxfp4_encode(std::span<const float> values, std::span<const std::uint8_t> old_scales,
                  std::span<std::uint8_t> blocks, std::span<std::uint8_t> scales) {
  TESSERA_EXPECT(values.size() == scales.size() * block_elements);
  TESSERA_EXPECT(blocks.size() == scales.size() * block_bytes);
  TESSERA_EXPECT(old_scales.empty() || old_scales.size() == scales.size());
  std::array<std::uint8_t, block_elements> codes;
  for (std::size_t b = 0; b < scales.size(); ++b) {
    const float* block = values.data() + b * block_elements;
    const std::uint32_t largest = largest_magnitude(block);
    if (largest >= first_not_finite)
      fail(ErrorKind::numeric, "a value is not finite (MXFP4 has neither infinity nor NaN)");
    bool is_done = false;
    if (!old_scales.empty() && old_scales[b] < mxfp4_first_refused_scale) {
      scales[b] = old_scales[b];
      choose_codes(block, scales[b], codes.data());
      is_done = reproduces(block, scales[b], codes.data());
    }
    if (!is_done) {
      scales[b] = rule_scale(largest);
      choose_codes(block, scales[b], codes.data());
    }
    pack(codes.data(), blocks.data() + b * block_bytes);
  }
}

std::int64_t first_refused_scale(std::span<const std::uint8_t> scales) {
  const auto found = std::find_if(scales.begin(), scales.end(), [](std::uint8_t scale) {
    return scale >= mxfp4_first_refused_scale;
  });
  return found == scales.end() ? -1 : found - scales.begin();
}

}  // namespace tessera::checkpoint
