// SPDX-License-Identifier: Apache-2.0
// Flat units: every element of every parameter is owned exactly once.
#include <catch2/catch.hpp>
#include <map>
#include <tessera/zero3/flat_layout.hpp>

#include "base/block_distribution.hpp"

namespace tessera::zero3 {
namespace {

const std::vector<Parameter> dense{{"a", {7, 5}}, {"b", {1}}, {"c", {3, 64}}};
const std::vector<Parameter> experts{{"e.weight", {8, 3, 5}, true, true}, {"e.bias", {8, 3}, true}};

/// How often each (parameter, global element) is in a slice.
using Owners = std::map<std::pair<std::string, std::int64_t>, int>;

void count(const std::vector<Slice>& slices, std::int64_t shard_size, Owners& owners) {
  std::int64_t end = 0;
  for (const Slice& slice : slices) {
    CHECK(slice.shard_offset >= end);  // slices do not overlap in the shard
    end = slice.shard_offset + slice.size();
    CHECK(end <= shard_size);
    for (std::int64_t i = slice.begin; i < slice.end; ++i) ++owners[{slice.parameter->name, i}];
  }
}

void check_owned_once(const Owners& owners, const std::vector<Parameter>& parameters) {
  std::size_t num_elements = 0;
  for (const Parameter& parameter : parameters) num_elements += parameter.size();
  CHECK(owners.size() == num_elements);
  for (const auto& [element, times] : owners) CHECK(times == 1);
}

}  // namespace

TEST_CASE("Ranks together own every element of dense parameters once") {
  for (const int group_size : {1, 2, 3, 4, 6, 100}) {
    const FlatLayout layout(dense, {}, group_size);
    CHECK(layout.shard_size() % flat_alignment == 0);
    Owners owners;
    for (int rank = 0; rank < group_size; ++rank) {
      count(layout.slices(dense, rank), layout.shard_size(), owners);
    }
    check_owned_once(owners, dense);
  }
}

TEST_CASE("Uneven experts are owned once over expert and replica ranks") {
  for (const int expert_ranks : {1, 3, 5, 11}) {
    for (const int replicas : {1, 2, 3}) {
      Owners owners;
      const BlockDistribution blocks{8, expert_ranks};
      for (int expert_rank = 0; expert_rank < expert_ranks; ++expert_rank) {
        const ExpertRange range{blocks.begin(expert_rank), blocks.end(expert_rank)};
        const FlatLayout layout(experts, range, replicas);
        for (int rank = 0; rank < replicas; ++rank) {
          count(layout.slices(experts, rank), layout.shard_size(), owners);
        }
      }
      check_owned_once(owners, experts);
    }
  }
}

TEST_CASE("Parameters begin at whole cache lines") {
  const FlatLayout layout(dense, {}, 2);
  for (std::size_t i = 0; i < dense.size(); ++i) CHECK(layout.offset(i) % flat_alignment == 0);
  CHECK(layout.flat_size() == 2 * layout.shard_size());
}

}  // namespace tessera::zero3
