// SPDX-License-Identifier: Apache-2.0
// Fingerprints against plain loops, on every grid and split.
#include "tessera/checkpoint/fingerprint.hpp"

#define XXH_VECTOR XXH_SCALAR
#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <catch2/catch.hpp>

#include "base/block_distribution.hpp"
#include "comm/process_grid.hpp"
#include "hdf5_fixture.hpp"
#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using comm::ProcessGrid;

namespace {

using Wide = unsigned __int128;

Wide wide(const Fingerprint& f) { return Wide(f.high) << 64 | f.low; }

float value_of(std::size_t p, std::int64_t i) { return test::element(Dtype::bf16, 7, p, i); }

/// The definition, element by element.
std::vector<Wide> plain_loop(const Parameter& parameter, std::size_t p) {
  const std::int64_t num_experts = parameter.is_expert ? parameter.shape[0] : 1;
  const std::int64_t size = parameter.size() / num_experts;
  std::int64_t block = 32;
  while (parameter.shape.back() % block != 0) block /= 2;
  std::vector<Wide> sums;
  for (std::int64_t e = 0; e < num_experts; ++e) {
    Wide sum = 0;
    for (std::int64_t first = 0; first < size; first += block) {
      std::vector<float> values;
      for (std::int64_t i = 0; i < block; ++i) values.push_back(value_of(p, e * size + first + i));
      const XXH128_hash_t hash =
          XXH3_128bits_withSeed(values.data(), values.size() * 4, XXH64_hash_t(first));
      sum += Wide(hash.high64) << 64 | hash.low64;
    }
    sums.push_back(sum);
  }
  return sums;
}

std::vector<Wide> sums_of(const FingerprintTable& table, const std::string& name) {
  std::vector<Wide> sums;
  for (const Fingerprint& f : table.find(name)->experts) sums.push_back(wide(f));
  return sums;
}

std::vector<float> values_of(std::size_t p, std::int64_t begin, std::int64_t end) {
  std::vector<float> values;
  for (std::int64_t i = begin; i < end; ++i) values.push_back(value_of(p, i));
  return values;
}

/// Shapes whose blocks have 32, 16, 8, 4, 2 and 1 elements.
std::vector<Parameter> expert_parameters() {
  std::vector<Parameter> parameters;
  for (const std::int64_t last : {96, 48, 40, 20, 6, 7})
    parameters.push_back(
        {.name = fmt::format("w{}", last), .shape = {5, 12, last}, .is_expert = true});
  return parameters;
}
std::vector<Parameter> dense_parameters() {
  return {{.name = "matrix", .shape = {33, 64}}, {.name = "norm", .shape = {80}}};
}

/// This rank's part of a unit, hashed in one or several pieces.
void hash_unit(const ProcessGrid& grid, const std::vector<Parameter>& parameters,
               std::int64_t piece, FingerprintTable& table) {
  for (const Parameter& parameter : parameters)
    table.expect(parameter.name, parameter.is_expert ? parameter.shape[0] : 1);
  for (const Slice& slice : test::deal_unit(grid, parameters).slices) {
    const std::size_t p = std::size_t(slice.parameter - parameters.data());
    for (std::int64_t at = slice.begin; at < slice.end; at += piece) {
      const std::int64_t end = std::min(slice.end, at + piece);
      table.add(*slice.parameter, at, values_of(p, at, end));
    }
  }
}

}  // namespace

TEST_CASE("every grid and split gives the fingerprints of the plain loop") {
  for (const int expert : test::expert_axes()) {
    const ProcessGrid grid(MPI_COMM_WORLD, {expert});
    for (const std::int64_t piece : {32, 64, 1 << 20}) {
      FingerprintTable table;
      hash_unit(grid, expert_parameters(), piece, table);
      hash_unit(grid, dense_parameters(), piece, table);
      table.sum(grid.world());
      for (const auto& parameters : {expert_parameters(), dense_parameters()}) {
        for (std::size_t p = 0; p < parameters.size(); ++p) {
          const Parameter& parameter = parameters[p];
          INFO(parameter.name << ", pieces of " << piece << ", expert axis " << expert);
          CHECK((sums_of(table, parameter.name) == plain_loop(parameter, p)));
          for (const std::int64_t n : table.find(parameter.name)->num_elements)
            CHECK(n * std::ssize(table.find(parameter.name)->experts) == parameter.size());
        }
      }
    }
  }
}

TEST_CASE("several tables are summed like each by itself") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  FingerprintTable experts, dense, both;
  hash_unit(grid, expert_parameters(), 64, experts);
  hash_unit(grid, dense_parameters(), 64, dense);
  hash_unit(grid, expert_parameters(), 64, both);
  hash_unit(grid, dense_parameters(), 64, both);
  FingerprintTable* const tables[] = {&experts, &dense};
  FingerprintTable::sum(grid.world(), tables);
  both.sum(grid.world());
  CHECK((sums_of(experts, "w96") == sums_of(both, "w96")));
  CHECK((sums_of(dense, "norm") == sums_of(both, "norm")));
}

TEST_CASE("an expert's fingerprint depends on its values and their places, not on its number") {
  const Parameter parameter{.name = "w", .shape = {2, 4, 32}, .is_expert = true};
  std::vector<float> values = values_of(0, 0, 128), twice = values;
  twice.insert(twice.end(), values.begin(), values.end());
  FingerprintTable equal, changed, moved;
  equal.add(parameter, 0, twice);
  CHECK(equal.find("w")->experts[0] == equal.find("w")->experts[1]);
  std::swap(twice[128 + 3], twice[128 + 4]);
  changed.add(parameter, 0, twice);
  CHECK(changed.find("w")->experts[0] == equal.find("w")->experts[0]);
  CHECK_FALSE(changed.find("w")->experts[1] == equal.find("w")->experts[1]);
  std::swap(twice[128 + 3], twice[128 + 4]);
  std::swap_ranges(twice.begin() + 128, twice.begin() + 160, twice.begin() + 160);
  moved.add(parameter, 0, twice);
  CHECK_FALSE(moved.find("w")->experts[1] == equal.find("w")->experts[1]);
}

TEST_CASE("the sign of zero and the bits of NaN count") {
  const Parameter parameter{.name = "w", .shape = {1}};
  const auto of = [&](float value) {
    FingerprintTable table;
    table.add(parameter, 0, std::span(&value, 1));
    return wide(table.find("w")->experts[0]);
  };
  CHECK((of(0.0f) != of(-0.0f)));
  CHECK((of(std::bit_cast<float>(0x7fc00000u)) != of(std::bit_cast<float>(0x7fc00001u))));
}

// Computed with Python's xxhash, as modules/checkpoint/FORMAT.md shows.
TEST_CASE("the numbers are those of the format's definition") {
  FingerprintTable table;
  std::vector<float> ramp;
  for (int i = 0; i < 192; ++i) ramp.push_back(float(i) / 8);
  table.add({.name = "ramp", .shape = {2, 3, 32}, .is_expert = true}, 0, ramp);
  table.add({.name = "row", .shape = {6}}, 0, std::span(ramp).first(6));
  const std::uint8_t bytes[] = {'a', 'b', 'c'};
  table.add_bytes("file", {3}, false, 0, bytes);
  CHECK(to_string(table.find("ramp")->experts[0]) == "2592c3b3c0733bfb3742b535d876f011");
  CHECK(to_string(table.find("ramp")->experts[1]) == "055d918abf7d4ca60fdc8e5e8e93f5e7");
  CHECK(to_string(table.find("row")->experts[0]) == "d2e4da8f9435565fb6ddd4b23e9b06a1");
  CHECK(to_string(table.find("file")->experts[0]) == "1155cbef078a41b6fc9459c713b46711");
  CHECK(to_string(fingerprint_of(table)) == "3ca8fbca8feaaa6e653536ed5a9be870");
}

TEST_CASE("shares are whole blocks and together everything") {
  for (const std::int64_t last : {96, 6, 7}) {
    const Parameter parameter{.name = "w", .shape = {5, 3, last}, .is_expert = true};
    const std::int64_t block = fingerprint_block(parameter.shape), begin = 3 * last;
    std::int64_t at = begin;
    for (int rank = 0; rank < 4; ++rank) {
      const Slice slice = even_share(parameter, begin, parameter.size(), 4, rank);
      CHECK(slice.begin == at);
      CHECK(slice.end % block == 0);
      at = slice.end;
    }
    CHECK(at == parameter.size());
  }
}

TEST_CASE("sums carry from the low word into the high one") {
  Fingerprint sum{~0ull, 1};
  sum += {1, 2};
  CHECK(sum == Fingerprint{0, 4});
  sum += {5, ~0ull};
  CHECK(sum == Fingerprint{5, 3});
}
