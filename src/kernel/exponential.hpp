// SPDX-License-Identifier: Apache-2.0
// What softmax and sigmoid need of floats, in a form that compilers vectorise: they never vectorise
// libm's exponential, nor a maximum of floats that respects NaN.
#pragma once

#include <Kokkos_Core.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace tessera::kernel {

/// exp(x) for x <= 0 and what rounding errors may make of it, with a relative error of
/// |x| * 2^-24 + 2^-23 (as much as rounding x costs); 0 from about x = -87 on, where results leave
/// the normal floats; NaN stays NaN. Coefficients: Cephes, expf.
KOKKOS_INLINE_FUNCTION float exp_nonpositive(float x) {
  // Comparisons in this direction let NaN through, and are the ones that become vector
  // instructions.
  const float above = x < -87.0f ? -87.0f : x;
  const float bounded = above > 1.0f ? 1.0f : above;
  const auto n = static_cast<std::int32_t>(bounded * 1.44269504f - 0.5f);  // nearest; any for NaN
  const float r = bounded - static_cast<float>(n) * 0.693147181f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const std::int32_t power_bits = n <= -126 ? 0 : (n + 127) << 23;
  float power;
  memcpy(&power, &power_bits, sizeof power);
  return p * power;
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
