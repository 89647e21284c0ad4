// SPDX-License-Identifier: Apache-2.0
// What softmax and sigmoid need of floats, in a form that compilers vectorise: they never vectorise
// libm's exponential, nor a maximum of floats that respects NaN.
#pragma once

#include <Kokkos_Core.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace tessera::kernel {

/// 2^n for n in [-125, 127], 0 for n below.
KOKKOS_INLINE_FUNCTION float power_of_two(std::int32_t n) {
  const std::int32_t bits = n <= -126 ? 0 : (n + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

/// 2^x for x <= 0 and what rounding errors may make of it, with a relative error of 2^-23; 0 from
/// about x = -126 on, where results leave the normal floats; NaN stays NaN. Coefficients: Cephes,
/// exp2f.
KOKKOS_INLINE_FUNCTION float exp2_nonpositive(float x) {
  // A comparison in this direction lets NaN through, and becomes a vector instruction.
  const float bounded = x < -127.0f ? -127.0f : x;
  const auto n = static_cast<std::int32_t>(bounded - 0.5f);  // nearest; any for NaN
  const float r = bounded - static_cast<float>(n);
  float p = 1.535336188319500e-4f;
  p = p * r + 1.339887440266574e-3f;
  p = p * r + 9.618437357674640e-3f;
  p = p * r + 5.550332471162809e-2f;
  p = p * r + 2.402264791363012e-1f;
  p = p * r + 6.931472028550421e-1f;
  p = p * r + 1.0f;
  return p * power_of_two(n);
}

inline constexpr float log2_of_e = 1.44269504f;

/// exp(x) likewise, with a relative error of |x| * 2^-24 + 2^-23 (as much as rounding x costs, and
/// far less of |x| where the compiler has fused multiply-add); 0 from about x = -87 on.
/// Coefficients: Cephes, expf.
KOKKOS_INLINE_FUNCTION float exp_nonpositive(float x) {
  const float bounded = x < -87.0f ? -87.0f : x;
  const auto n = static_cast<std::int32_t>(bounded * log2_of_e - 0.5f);
  const float r = bounded - static_cast<float>(n) * 0.693147181f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * power_of_two(n);
}

/// T(x) in fewer instructions for results of arithmetic on T, whose NaN (if any) have zeros where
/// rounding could carry into the sign.
template <class T>
KOKKOS_INLINE_FUNCTION T round_to(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    std::uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    T rounded;
    rounded.bits = static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    return rounded;
  }
}

struct Sigmoid {
  float value;
  float complement;  ///< 1 - value, without cancellation
};

/// 1 / (1 + exp(-x)) by way of the above; NaN stays NaN.
KOKKOS_INLINE_FUNCTION Sigmoid sigmoid(float x) {
  const float e = exp_nonpositive(-std::fabs(x));
  const float larger = 1.0f / (1.0f + e);
  const float smaller = e * larger;
  return {x < 0.0f ? smaller : larger, x < 0.0f ? larger : smaller};
}

/// Integers in the order of the floats that they stand for, so that an integer maximum finds the
/// float maximum.
KOKKOS_INLINE_FUNCTION std::int32_t ordered_bits(float x) {
  std::int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

KOKKOS_INLINE_FUNCTION float from_ordered_bits(std::int32_t ordered) {
  const std::int32_t bits = ordered ^ ((ordered >> 31) & 0x7fffffff);
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace tessera::kernel
