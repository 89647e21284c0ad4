// SPDX-License-Identifier: Apache-2.0
#include "value_sum.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

namespace tessera::checkpoint {
namespace {

/// Places form rows; the number of a place is that of its column plus that of its row, so that a
/// row needs one multiplication and one addition per value and little besides.
constexpr std::int64_t row_size = 256;

/// Finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit depends on every bit.
constexpr std::uint64_t scrambled(std::uint64_t x) {
  x = (x + 0x9e3779b97f4a7c15u) ^ (x >> 30);
  x *= 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr std::array<std::uint32_t, row_size> column_numbers = [] {
  std::array<std::uint32_t, row_size> numbers{};
  for (std::size_t k = 0; k < numbers.size(); ++k)
    numbers[k] = static_cast<std::uint32_t>(scrambled(k)) & ~1u;
  return numbers;
}();

/// Odd, and with even columns every place's is: a product with it loses no change.
std::uint64_t row_number(std::int64_t row) {
  return scrambled(~static_cast<std::uint64_t>(row)) | 1u;
}

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
std::uint32_t bits_of(std::uint8_t value) { return value; }

struct RowSum {
  std::uint64_t products = 0;  ///< of the values' bits and the numbers of their columns
  std::uint64_t bits = 0;
};

/// Sixteen floats in a register, as eight pairs.
using Pairs = std::uint64_t __attribute__((vector_size(64)));
constexpr std::int64_t pairs_size = 16;

/// Of whole registers; the compiler alone finds no more than half of the speed.
RowSum sum_of_pairs(const float* values, std::int64_t count, const std::uint32_t* numbers) {
  constexpr Pairs low = Pairs{} + 0xffffffffu;
  Pairs products{}, bits{};
  for (std::int64_t k = 0; k < count; k += pairs_size) {
    Pairs x, n;
    std::memcpy(&x, values + k, sizeof x);
    std::memcpy(&n, numbers + k, sizeof n);
    const Pairs even = x & low, odd = x >> 32;
    products += even * (n & low) + odd * (n >> 32);
    bits += even + odd;
  }
  RowSum sum;
  for (int k = 0; k < 8; ++k) sum.products += products[k], sum.bits += bits[k];
  return sum;
}

template <class T>
std::uint64_t sum_of_row(const T* values, std::int64_t count, const std::uint32_t* numbers,
                         std::uint64_t row_number) {
  RowSum sum;
  std::int64_t k = 0;
  if constexpr (std::is_same_v<T, float>) {
    k = count / pairs_size * pairs_size;
    sum = sum_of_pairs(values, k, numbers);
  }
  for (; k < count; ++k) {
    sum.products += std::uint64_t(bits_of(values[k])) * numbers[k];
    sum.bits += bits_of(values[k]);
  }
  return sum.products + row_number * sum.bits;
}

template <class T>
std::uint64_t sum_of(std::int64_t first, std::span<const T> values) {
  std::uint64_t sum = 0;
  const std::int64_t end = first + std::ssize(values);
  for (std::int64_t at = first; at < end;) {
    const std::int64_t column = at % row_size;
    const std::int64_t count = std::min(row_size - column, end - at);
    sum += sum_of_row(values.data() + (at - first), count, column_numbers.data() + column,
                      row_number(at / row_size));
    at += count;
  }
  return sum;
}

}  // namespace

std::uint64_t value_sum(std::int64_t first, std::span<const float> values) {
  return sum_of(first, values);
}
std::uint64_t value_sum(std::int64_t first, std::span<const std::uint8_t> values) {
  return sum_of(first, values);
}

}  // namespace tessera::checkpoint
