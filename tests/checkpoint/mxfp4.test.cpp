// SPDX-License-Identifier: Apache-2.0
// MXFP4 against a table of its numbers, searched through.
#include "tessera/checkpoint/mxfp4.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/dtype.hpp"
#include "base/error.hpp"

using namespace tessera;
using namespace tessera::checkpoint;

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr double magnitudes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};

struct Blocks {
  Bytes blocks, scales;
  bool operator==(const Blocks&) const = default;
};

double oracle_value(int code, int scale) {
  const double magnitude = std::ldexp(magnitudes[code % 8], scale - 127);
  return code < 8 ? magnitude : -magnitude;
}

/// The nearest code of the sign, the even one of two equally near.
int oracle_code(float value, int scale) {
  int best = 0;
  for (int code = 1; code < 8; ++code) {
    const double magnitude = std::fabs(double(value));
    const double error = std::fabs(magnitude - oracle_value(code, scale));
    const double least = std::fabs(magnitude - oracle_value(best, scale));
    if (error < least || (error == least && code % 2 == 0)) best = code;
  }
  return std::signbit(value) ? best + 8 : best;
}

int oracle_scale(const float* block) {
  double largest = 0.0;
  for (int k = 0; k < 32; ++k) largest = std::max(largest, std::fabs(double(block[k])));
  if (largest == 0.0) return 0;
  return std::clamp(127 + int(std::floor(std::log2(largest))) - 2, 0, 252);
}

Blocks oracle_encode(const std::vector<float>& values) {
  Blocks result{Bytes(values.size() / 2), Bytes(values.size() / 32)};
  for (std::size_t b = 0; b < result.scales.size(); ++b) {
    const int scale = oracle_scale(&values[b * 32]);
    result.scales[b] = std::uint8_t(scale);
    for (std::size_t k = 0; k < 32; ++k)
      result.blocks[b * 16 + k / 2] |=
          std::uint8_t(oracle_code(values[b * 32 + k], scale) << (k % 2 * 4));
  }
  return result;
}

Blocks encode(const std::vector<float>& values, const Bytes& old_scales) {
  Blocks result{Bytes(values.size() / 2), Bytes(values.size() / 32)};
  mxfp4_encode(values, old_scales, result.blocks, result.scales);
  return result;
}

std::vector<float> decode(const Blocks& from) {
  std::vector<float> values(from.scales.size() * 32);
  mxfp4_decode(from.blocks, from.scales, values);
  return values;
}

/// Random codes; blocks of low codes alone, of zeros, and of both zeros among them.
Blocks random_blocks(std::size_t num_blocks) {
  std::mt19937 random(7);
  Blocks result{Bytes(num_blocks * 16), Bytes(num_blocks)};
  for (std::size_t b = 0; b < num_blocks; ++b) {
    result.scales[b] = std::uint8_t(random() % 253);
    const unsigned mask = std::array{0xffu, 0xbbu, 0x99u, 0x88u, 0x00u}[b % 5];
    for (std::size_t k = 0; k < 16; ++k) result.blocks[b * 16 + k] = std::uint8_t(random() & mask);
  }
  return result;
}

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }

}  // namespace

TEST_CASE("every code at every scale stands for its number, exactly in f32 and in bf16") {
  int num_wrong = 0;
  for (int scale = 0; scale < mxfp4_first_refused_scale; ++scale) {
    Blocks one{Bytes(16), {std::uint8_t(scale)}};
    for (int code = 0; code < 16; ++code)
      one.blocks[std::size_t(code / 2)] |= std::uint8_t(code << code % 2 * 4);
    const std::vector<float> values = decode(one);
    for (int code = 0; code < 16; ++code) {
      const float expected = float(oracle_value(code, scale)), value = values[std::size_t(code)];
      num_wrong += double(expected) != oracle_value(code, scale);
      num_wrong += bits(value) != bits(code == 8 ? -0.0f : expected);
      num_wrong += bits(float(bf16(value))) != bits(value);
    }
  }
  CHECK(num_wrong == 0);
  CHECK(decode({{0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {0}})[0] == 0x1p-128f);
}

TEST_CASE("unchanged values with their old scales come back byte for byte") {
  const Blocks original = random_blocks(20000);
  CHECK(encode(decode(original), original.scales) == original);
}

TEST_CASE("without old scales the rule decides, and the numbers stay those that they were") {
  const Blocks original = random_blocks(2000);
  const std::vector<float> values = decode(original);
  const Blocks again = encode(values, {});
  CHECK(again == oracle_encode(values));
  CHECK(again.scales != original.scales);
  const std::vector<float> same = decode(again);
  CHECK(std::equal(values.begin(), values.end(), same.begin(),
                   [](float a, float b) { return bits(a) == bits(b); }));
}

TEST_CASE("random values are rounded to the nearest code, ties to the even one") {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> values(32 * 3000);
  for (std::size_t k = 0; k < values.size(); ++k)
    values[k] = std::ldexp(normal(random), int(k / 32 % 280) - 160);
  // Multiples of a quarter meet every halfway case; the largest fixes the scale.
  for (std::size_t k = 0; k < 32; ++k) values[k] = float(k) * 0.25f - (k % 2 == 0 ? 0.0f : 8.0f);
  for (std::size_t k = 32; k < 64; ++k) values[k] = k == 32 ? 4.0f : float(k - 32) * -0.25f;
  CHECK(encode(values, {}) == oracle_encode(values));
}

TEST_CASE("the smallest and the largest numbers are encoded as the rule says") {
  std::vector<float> values;
  for (const float largest :
       {0x1p-149f, 0x1p-129f, 0x1.8p-128f, 0x1p-127f, 0x1p-126f, 0x1p-125f, 0x1.8p-124f, 0x1p-123f,
        std::numeric_limits<float>::max(), 0x1p127f, 0x1.4p127f})
    for (int k = 0; k < 32; ++k)
      values.push_back(std::ldexp(largest, -k / 2) * (k % 3 == 0 ? -1 : 1));
  const Blocks encoded = encode(values, {});
  CHECK(encoded == oracle_encode(values));
  CHECK(*std::max_element(encoded.scales.begin(), encoded.scales.end()) == 252);
}

TEST_CASE("a block that its old scale does not reproduce goes by the rule, its neighbours do not") {
  const Blocks original = random_blocks(50);
  std::vector<float> values = decode(original);
  const float before = values[7 * 32 + 3];
  values[7 * 32 + 3] = before == 0.0f ? 0x1p-120f : before * 1.0625f;
  const Blocks encoded = encode(values, original.scales);
  const Blocks by_rule = encode({values.begin() + 7 * 32, values.begin() + 8 * 32}, {});
  for (std::size_t b = 0; b < 50; ++b) {
    const Blocks& expected = b == 7 ? by_rule : original;
    const std::size_t at = b == 7 ? 0 : b;
    INFO("block " << b);
    CHECK(encoded.scales[b] == expected.scales[at]);
    CHECK(std::equal(&encoded.blocks[b * 16], &encoded.blocks[b * 16] + 16,
                     &expected.blocks[at * 16]));
  }
}

TEST_CASE("a block of zeros keeps its old scale and the signs of its zeros") {
  std::vector<float> values(32, 0.0f);
  values[5] = values[8] = -0.0f;
  CHECK(encode(values, {201}).scales[0] == 201);
  CHECK(encode(values, {}).scales[0] == 0);
  for (const Bytes& old : {Bytes{}, Bytes{201}, Bytes{255}}) {
    const Blocks encoded = encode(values, old);
    CHECK(encoded.blocks == Bytes{0, 0, 0x80, 0, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  }
  CHECK(encode(values, {255}).scales[0] == 0);  // a scale that is refused is never written
}

TEST_CASE("infinity and NaN have no MXFP4 form") {
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    std::vector<float> values(64, 1.0f);
    values[40] = bad;
    CHECK_THROWS_AS(encode(values, {}), Error);
    CHECK_THROWS_AS(encode(values, {127, 127}), Error);
  }
}

TEST_CASE("the first scale that bf16 cannot hold is found") {
  CHECK(first_refused_scale(Bytes{0, 252, 127}) == -1);
  CHECK(first_refused_scale(Bytes{0, 252, 253, 255}) == 2);
  CHECK(first_refused_scale(Bytes{}) == -1);
}
