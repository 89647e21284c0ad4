// SPDX-License-Identifier: Apache-2.0
#include "base/dtype.hpp"

#include <bit>
#include <cmath>

namespace tessera {

std::size_t size_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::u8:
    case Dtype::f8_e4m3: return 1;
    case Dtype::f16:
    case Dtype::bf16: return 2;
    case Dtype::i32:
    case Dtype::f32: return 4;
    case Dtype::i64:
    case Dtype::u64:
    case Dtype::f64: return 8;
  }
  return 0;
}

const char* to_string(Dtype dtype) {
  switch (dtype) {
    case Dtype::u8: return "u8";
    case Dtype::i32: return "i32";
    case Dtype::i64: return "i64";
    case Dtype::u64: return "u64";
    case Dtype::f16: return "f16";
    case Dtype::bf16: return "bf16";
    case Dtype::f32: return "f32";
    case Dtype::f64: return "f64";
    case Dtype::f8_e4m3: return "f8_e4m3";
  }
  return "?";
}

float f16_to_float(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  if (exponent == 31) {  // infinity, or a NaN that keeps its payload
    const std::uint32_t sign_bit = static_cast<std::uint32_t>(bits & 0x8000) << 16;
    return std::bit_cast<float>(sign_bit | 0x7f800000u |
                                (static_cast<std::uint32_t>(mantissa) << 13));
  }
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

std::uint16_t float_to_f16(float value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) {
    const std::uint32_t payload = (std::bit_cast<std::uint32_t>(value) & 0x7fffffu) >> 13;
    return static_cast<std::uint16_t>(sign | 0x7c00 | (payload != 0 ? payload : 0x200u));
  }
  if (magnitude >= 65520.0f) return sign | 0x7c00;
  // Below 2^-14 the step is 2^-24; above, 2^(exponent - 10). rint rounds to even.
  const int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
  const auto steps = static_cast<int>(std::rint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<std::uint16_t>(sign + ((exponent + 14) << 10) + steps);
}

float f8_e4m3_to_float(std::uint8_t bits) {
  const int exponent = (bits >> 3) & 0xf;
  const int mantissa = bits & 0x7;
  const float sign = (bits & 0x80) != 0 ? -1.0f : 1.0f;
  if (exponent == 15 && mantissa == 7) return NAN;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -9);
  return sign * std::ldexp(static_cast<float>(mantissa + 8), exponent - 10);
}

}  // namespace tessera
