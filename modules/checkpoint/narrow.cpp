// SPDX-License-Identifier: Apache-2.0
#include "narrow.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/contract.hpp"

namespace tessera::checkpoint {
namespace {

/// Converts each, and counts the finite values from `first_too_large` on (as bits of the
/// magnitude): those that round to infinity. Looking where one is comes after the loop, which stays
/// simple enough to be vectorised.
template <class T, class Convert>
std::int64_t narrow_each(const float* from, std::int64_t count, std::byte* to,
                         std::uint32_t first_too_large, Convert convert) {
  constexpr std::uint32_t infinity = 0x7f800000u;
  const auto is_too_large = [&](float value) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(value) & 0x7fffffffu;
    return magnitude >= first_too_large && magnitude < infinity;
  };
  std::int64_t num_too_large = 0;
  for (std::int64_t k = 0; k < count; ++k) {
    const T element = convert(from[k]);
    std::memcpy(to + k * std::int64_t(sizeof(T)), &element, sizeof(T));
    num_too_large += is_too_large(from[k]) ? 1 : 0;
  }
  for (std::int64_t k = 0; num_too_large > 0 && k < count; ++k)
    if (is_too_large(from[k])) return k;
  return -1;
}

}  // namespace

std::int64_t narrow(Dtype dtype, const float* from, std::int64_t count, std::byte* to) {
  // Halfway between the largest number and the one that would follow it.
  constexpr std::uint32_t above_bf16 = 0x7f7f8000u;
  constexpr std::uint32_t above_f16 = std::bit_cast<std::uint32_t>(65520.0f);
  switch (dtype) {
    case Dtype::f32: std::memcpy(to, from, std::size_t(count) * sizeof(float)); return -1;
    case Dtype::bf16:
      return narrow_each<std::uint16_t>(from, count, to, above_bf16,
                                        [](float value) { return bf16(value).bits; });
    case Dtype::f16:
      return narrow_each<std::uint16_t>(from, count, to, above_f16,
                                        [](float value) { return float_to_f16(value); });
    case Dtype::f64:
      for (std::int64_t k = 0; k < count; ++k) {
        const double element = from[k];
        std::memcpy(to + k * std::int64_t(sizeof element), &element, sizeof element);
      }
      return -1;
    default: TESSERA_EXPECT(dtype == Dtype::f32);
  }
  return -1;
}

}  // namespace tessera::checkpoint
