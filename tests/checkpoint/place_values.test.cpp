// SPDX-License-Identifier: Apache-2.0
// The last step of a load, from the bytes of a file to values in a shard, and the sum that proves
// it.
#include "place_values.hpp"

#include <bit>
#include <catch2/catch.hpp>
#include <limits>

#include "value_sum.hpp"
#include "widen.hpp"

using namespace tessera;
using namespace tessera::checkpoint;

namespace {

std::vector<float> some_values(std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::uint32_t state = 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = float(bf16(float(std::int32_t(state)) * 1e-9f));
  }
  return values;
}

std::uint64_t sum_of(const std::vector<float>& values, std::int64_t first = 0) {
  return value_sum(first, std::span<const float>(values));
}

float with_bit_flipped(float value, int bit) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ (1u << bit));
}

}  // namespace

TEST_CASE("values of every type come to any address, and nothing beside them is written") {
  constexpr std::int64_t most = 5001;  // odd, so that each value is a block of its own
  const Parameter parameter{.name = "values", .shape = {most}};
  std::vector<std::byte> raw(most * 8);
  for (std::size_t k = 0; k < raw.size(); ++k) raw[k] = std::byte((k * 37 + k / 8) % 63);
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32, Dtype::f64})
    for (const std::int64_t count : {0, 1, 8, 16, 100, 2048, 2056, 5000})
      for (const std::int64_t offset : {0, 1, 5, 16}) {
        INFO(to_string(dtype) << ", " << count << " at " << offset);
        std::vector<float> expected(most + 32, -1.0f), actual = expected;
        widen(dtype, raw.data(), count, expected.data() + offset);
        FingerprintTable table, of_values;
        table.add(
            parameter, 0,
            std::span<const float>(expected).subspan(std::size_t(offset), std::size_t(count)));
        table.expect("values", 1);
        of_values.expect("values", 1);
        TensorHash hash(parameter, &of_values);
        place_values(dtype, raw.data(), count, actual.data() + offset, 0, hash);
        finish_placing();
        CHECK(actual == expected);
        CHECK(of_values.find("values")->experts == table.find("values")->experts);
        CHECK(of_values.find("values")->num_elements == table.find("values")->num_elements);
      }
}

TEST_CASE("the sum of a tensor's parts is that of the whole, however it is cut") {
  const std::vector<float> values = some_values(3000);
  const std::uint64_t whole = sum_of(values, 77);
  for (const std::int64_t step : {1, 3, 32, 255, 256, 257, 2999}) {
    std::uint64_t sum = 0;
    for (std::int64_t at = 0; at < std::ssize(values); at += step)
      sum += value_sum(77 + at,
                       std::span<const float>(values).subspan(
                           std::size_t(at), std::size_t(std::min(step, std::ssize(values) - at))));
    CHECK(sum == whole);
  }
}

TEST_CASE("the sum tells every flipped bit, exchange, shift and repetition") {
  const std::vector<float> values = some_values(1024);
  const std::uint64_t whole = sum_of(values);
  std::int64_t num_missed = 0;
  for (std::size_t k = 0; k < values.size(); ++k) {
    std::vector<float> changed = values;
    for (int bit = 0; bit < 32; ++bit) {
      changed[k] = with_bit_flipped(values[k], bit);
      num_missed += sum_of(changed) == whole ? 1 : 0;
    }
    changed = values;
    for (std::size_t i = k + 1; i < values.size(); i += 97) {
      std::swap(changed[k], changed[i]);
      num_missed += values[k] != values[i] && sum_of(changed) == whole ? 1 : 0;
      std::swap(changed[k], changed[i]);
    }
  }
  CHECK(num_missed == 0);
  for (const std::int64_t first : {1, 32, 256, 512}) CHECK(sum_of(values, first) != whole);
  std::vector<float> doubled = values;
  std::copy_n(values.begin(), 512, doubled.begin() + 512);
  CHECK(sum_of(doubled) != whole);
  CHECK(sum_of(std::vector<float>(1024, 0.0f)) != whole);
}

TEST_CASE("a table of such sums is the same for every cut") {
  const std::vector<float> values = some_values(4096);
  const Parameter parameter{.name = "values", .shape = {4, 1024}, .is_expert = true};
  std::vector<Fingerprint> whole;
  for (const std::int64_t step : {4096, 1024, 96, 32}) {
    FingerprintTable table(SumKind::values);
    for (std::int64_t at = 0; at < 4096; at += step)
      table.add(parameter, at,
                std::span<const float>(values).subspan(
                    std::size_t(at), std::size_t(std::min<std::int64_t>(step, 4096 - at))));
    const TensorFingerprint& found = *table.find("values");
    if (whole.empty()) whole = found.experts;
    CHECK(found.experts == whole);
    CHECK(found.num_elements == std::vector<std::int64_t>(4, 1024));
  }
  CHECK(whole[0].high == 0);
  CHECK(whole[0].low == value_sum(0, std::span<const float>(values).first(1024)));
}

TEST_CASE("the sum is the same in every build, so that ranks of unlike nodes agree") {
  const std::vector<float> values = some_values(1000);
  CHECK(sum_of(values, 1'000'000'007) == 1674241192995127296u);
}
