// SPDX-License-Identifier: Apache-2.0
// bf16 and f16 against their definitions.
#include "base/dtype.hpp"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace tessera;

namespace {

float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

// Nearest of the two neighbours, the even one half way between.
std::uint16_t rounded_by_definition(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto below = static_cast<std::uint16_t>(bits >> 16);
  const double low = from_bits(static_cast<std::uint32_t>(below) << 16);
  const double high = from_bits(static_cast<std::uint32_t>(below + 1) << 16);
  const double to_low = std::fabs(value - low), to_high = std::fabs(high - value);
  if (to_low != to_high) return static_cast<std::uint16_t>(to_low < to_high ? below : below + 1);
  return static_cast<std::uint16_t>((below & 1) == 0 ? below : below + 1);
}

}  // namespace

TEST_CASE("every bf16 and every f16 survives the way to float and back, NaN's payload included") {
  int num_wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    if (bf16(from_bits(bits << 16)).bits != bits) ++num_wrong;
    if (float_to_f16(f16_to_float(static_cast<std::uint16_t>(bits))) != bits) ++num_wrong;
  }
  CHECK(num_wrong == 0);
}

TEST_CASE("float to bf16 rounds to the nearest, half way to even") {
  int num_wrong = 0;
  for (const std::uint32_t upper :
       {0x0000u, 0x3f80u, 0x3f81u, 0x4049u, 0x0001u, 0x7f7eu, 0xbf80u, 0xc2ffu}) {
    for (const std::uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float value = from_bits(upper << 16 | lower);
      if (bf16(value).bits != rounded_by_definition(value)) ++num_wrong;
    }
  }
  CHECK(num_wrong == 0);
  CHECK(bf16(from_bits(0x3f808000)).bits == 0x3f80);
  CHECK(bf16(from_bits(0x3f818000)).bits == 0x3f82);
}

TEST_CASE("bf16 keeps infinity, overflows to infinity and keeps the sign of zero") {
  CHECK(bf16(std::numeric_limits<float>::infinity()).bits == 0x7f80);
  CHECK(bf16(-std::numeric_limits<float>::infinity()).bits == 0xff80);
  CHECK(bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(bf16(-0.0f).bits == 0x8000);
}

TEST_CASE("every NaN stays NaN in bf16") {
  for (const std::uint32_t bits :
       {0x7fc00000u, 0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    CHECK(std::isnan(static_cast<float>(bf16(from_bits(bits)))));
  }
}

TEST_CASE("float to f16 rounds to the nearest, half way to even, and overflows to infinity") {
  CHECK(float_to_f16(1.0f + 0x1p-11f) == 0x3c00);
  CHECK(float_to_f16(1.0f + 0x3p-11f) == 0x3c02);
  CHECK(float_to_f16(std::nextafter(1.0f + 0x1p-11f, 2.0f)) == 0x3c01);
  CHECK(float_to_f16(std::nextafter(2.0f, 0.0f)) == 0x4000);  // a carry into the exponent
  CHECK(float_to_f16(0x1p-25f) == 0x0000);                    // half of the smallest, to even
  CHECK(float_to_f16(-0x3p-25f) == 0x8002);
  CHECK(float_to_f16(std::nextafter(0x1p-14f, 0.0f)) == 0x0400);  // subnormal to normal
  CHECK(float_to_f16(65519.0f) == 0x7bff);
  CHECK(float_to_f16(-65520.0f) == 0xfc00);
  CHECK(float_to_f16(from_bits(0x7f800001)) == 0x7e00);  // no payload is left, still NaN
}

TEST_CASE("F8_E4M3 is read by its definition") {
  for (std::uint32_t bits = 0; bits < 0x100; ++bits) {
    const float value = f8_e4m3_to_float(static_cast<std::uint8_t>(bits));
    const int exponent = static_cast<int>(bits >> 3 & 15), mantissa = static_cast<int>(bits & 7);
    if ((bits & 0x7f) == 0x7f) {
      CHECK(std::isnan(value));
      continue;
    }
    const double magnitude =
        exponent == 0 ? mantissa / 512.0 : (1.0 + mantissa / 8.0) * std::pow(2.0, exponent - 7);
    CHECK(std::fabs(value) == magnitude);
    CHECK(std::signbit(value) == (bits >= 0x80));
  }
}

TEST_CASE("f16 values are read exactly") {
  CHECK(f16_to_float(0x3c00) == 1.0f);
  CHECK(f16_to_float(0xc000) == -2.0f);
  CHECK(f16_to_float(0x7bff) == 65504.0f);
  CHECK(f16_to_float(0x0001) == std::ldexp(1.0f, -24));
  CHECK(f16_to_float(0x03ff) == std::ldexp(1023.0f, -24));
  CHECK(f16_to_float(0x0400) == std::ldexp(1.0f, -14));
  CHECK(f16_to_float(0x3555) == 0.333251953125f);
  CHECK(std::signbit(f16_to_float(0x8000)));
  CHECK(f16_to_float(0x7c00) == std::numeric_limits<float>::infinity());
  CHECK(f16_to_float(0xfc00) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(f16_to_float(0x7e00)));
}

TEST_CASE("each element type has the size and tag of its C++ type") {
  CHECK(size_of(dtype_of<std::uint8_t>) == 1);
  CHECK(size_of(dtype_of<bf16>) == sizeof(bf16));
  CHECK(size_of(Dtype::f16) == 2);
  CHECK(size_of(dtype_of<std::int32_t>) == 4);
  CHECK(size_of(dtype_of<std::int64_t>) == 8);
  CHECK(size_of(dtype_of<std::uint64_t>) == 8);
  CHECK(size_of(dtype_of<float>) == 4);
  CHECK(size_of(dtype_of<double>) == 8);
  CHECK(std::string(to_string(dtype_of<bf16>)) == "bf16");
}
