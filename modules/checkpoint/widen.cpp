// SPDX-License-Identifier: Apache-2.0
#include "widen.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/contract.hpp"
#include "tessera/checkpoint/encoding.hpp"

namespace tessera::checkpoint {
namespace {

template <class T, class ToFloat>
void widen_each(const std::byte* from, std::int64_t count, float* to, ToFloat to_float) {
  for (std::int64_t k = 0; k < count; ++k) {
    T element;
    std::memcpy(&element, from + k * std::int64_t(sizeof(T)), sizeof(T));
    to[k] = to_float(element);
  }
}

/// All 65,536 values: the conversion itself is too slow for billions of elements.
const std::vector<float>& f16_values() {
  static const std::vector<float> values = [] {
    std::vector<float> table(1 << 16);
    for (std::size_t bits = 0; bits < table.size(); ++bits)
      table[bits] = f16_to_float(static_cast<std::uint16_t>(bits));
    return table;
  }();
  return values;
}

const std::array<float, 256>& f8_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> table{};
    for (std::size_t bits = 0; bits < table.size(); ++bits)
      table[bits] = f8_e4m3_to_float(static_cast<std::uint8_t>(bits));
    return table;
  }();
  return values;
}

}  // namespace

void widen(Dtype dtype, const std::byte* from, std::int64_t count, float* to) {
  switch (dtype) {
    case Dtype::f32: std::memcpy(to, from, std::size_t(count) * sizeof(float)); return;
    case Dtype::bf16:
      return widen_each<bf16>(from, count, to, [](bf16 value) { return float(value); });
    case Dtype::f16:
      return widen_each<std::uint16_t>(
          from, count, to, [&table = f16_values()](std::uint16_t bits) { return table[bits]; });
    case Dtype::f64:
      return widen_each<double>(from, count, to, [](double value) { return float(value); });
    default: TESSERA_EXPECT(dtype == Dtype::f32);
  }
}

void widen_fp8(const std::byte* from, std::int64_t begin, std::int64_t count,
               std::int64_t num_columns, const float* factors, std::int64_t first_factor_row,
               float* to) {
  const auto& values = f8_values();
  const std::int64_t factors_per_row = (num_columns + fp8_block - 1) / fp8_block;
  // In stretches that share one factor: to the end of its block or of the row.
  for (std::int64_t k = 0; k < count;) {
    const std::int64_t row = (begin + k) / num_columns, column = (begin + k) % num_columns;
    const std::int64_t stretch =
        std::min({fp8_block - column % fp8_block, num_columns - column, count - k});
    const float factor =
        factors[(row / fp8_block - first_factor_row) * factors_per_row + column / fp8_block];
    for (const std::int64_t end = k + stretch; k < end; ++k)
      to[k] = bf16(values[std::to_integer<std::uint8_t>(from[k])] * factor);
  }
}

}  // namespace tessera::checkpoint
