// SPDX-License-Identifier: Apache-2.0
// Rounding to the half-size types against a search for the nearest value.
#include "hdf5_types.hpp"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "narrow.hpp"
#include "widen.hpp"

using namespace tessera;
using namespace tessera::checkpoint;

namespace {

// Nearest binary16 by looking at the two neighbours; ties go to the even one. For 0 <= value <
// 65520.
std::uint16_t nearest_f16(float value) {
  std::uint16_t low = 0;
  for (std::uint16_t step = 0x4000; step != 0; step >>= 1) {
    const auto candidate = static_cast<std::uint16_t>(low + step);
    if (candidate <= 0x7bff && f16_to_float(candidate) <= value) low = candidate;
  }
  if (low == 0x7bff) return low;
  const auto high = static_cast<std::uint16_t>(low + 1);
  const double below = double(value) - f16_to_float(low),
               above = double(f16_to_float(high)) - value;
  if (below != above) return below < above ? low : high;
  return low % 2 == 0 ? low : high;
}

}  // namespace

TEST_CASE("every binary16 value survives the way to float and back") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = f16_to_float(static_cast<std::uint16_t>(bits));
    if (!std::isnan(value) && float_to_f16(value) != bits) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("floats round to the nearest binary16, ties to even, on either sign") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x477ff000u; bits += 4093) {
    for (const std::uint32_t nearby : {bits, bits & ~0xfffu, bits & ~0x1fffu}) {
      const float value = std::bit_cast<float>(nearby);
      if (float_to_f16(value) != nearest_f16(value)) ++wrong;
      if (float_to_f16(-value) != (nearest_f16(value) | 0x8000)) ++wrong;
    }
  }
  CHECK(wrong == 0);
  CHECK(float_to_f16(65520.0f) == 0x7c00);
  CHECK(float_to_f16(65519.99f) == 0x7bff);
  CHECK(float_to_f16(-INFINITY) == 0xfc00);
  CHECK(std::isnan(f16_to_float(float_to_f16(NAN))));
}

TEST_CASE("narrow and widen agree for every float type") {
  const std::vector<float> values{0.0f, -0.0f, 1.5f, -2048.0f, 0.000061035156f, 65504.0f};
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32, Dtype::f64}) {
    std::vector<float> rounded = values, back(values.size());
    if (dtype == Dtype::bf16)
      for (float& value : rounded) value = bf16(value);
    std::vector<std::byte> raw(values.size() * size_of(dtype));
    narrow(dtype, values.data(), std::int64_t(values.size()), raw.data());
    widen(dtype, raw.data(), std::int64_t(values.size()), back.data());
    CHECK(back == rounded);
  }
}

TEST_CASE("file types are told apart, also from big-endian and integer ones of the same size") {
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32, Dtype::f64, Dtype::u8}) {
    CHECK(dtype_of_hdf5(hdf5_type(dtype).get()) == dtype);
  }
  CHECK_FALSE(dtype_of_hdf5(H5T_IEEE_F32BE).has_value());
  CHECK_FALSE(dtype_of_hdf5(H5T_STD_I16LE).has_value());
  CHECK_FALSE(dtype_of_hdf5(H5T_STD_I32LE).has_value());
}
