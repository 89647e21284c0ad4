// SPDX-License-Identifier: Apache-2.0
#include "base/block_distribution.hpp"

#include <catch2/catch.hpp>

using tessera::BlockDistribution;

TEST_CASE("blocks follow one another, cover all items and differ by one at most") {
  for (std::int64_t num_ranks = 1; num_ranks <= 9; ++num_ranks) {
    for (std::int64_t num_items = 0; num_items <= 30; ++num_items) {
      const BlockDistribution blocks{num_items, num_ranks};
      CAPTURE(num_items, num_ranks);
      CHECK(blocks.begin(0) == 0);
      CHECK(blocks.end(num_ranks - 1) == num_items);
      for (std::int64_t rank = 0; rank < num_ranks; ++rank) {
        const bool is_large = rank < num_items % num_ranks;
        CHECK(blocks.count(rank) == num_items / num_ranks + (is_large ? 1 : 0));
      }
    }
  }
}

TEST_CASE("the owner of an item is the rank whose block holds it") {
  for (std::int64_t num_ranks = 1; num_ranks <= 9; ++num_ranks) {
    for (std::int64_t num_items = 1; num_items <= 30; ++num_items) {
      const BlockDistribution blocks{num_items, num_ranks};
      for (std::int64_t item = 0; item < num_items; ++item) {
        const std::int64_t rank = blocks.owner(item);
        CAPTURE(num_items, num_ranks, item, rank);
        CHECK((blocks.begin(rank) <= item && item < blocks.end(rank)));
      }
    }
  }
}

TEST_CASE("eight experts on three ranks are three, three and two") {
  const BlockDistribution experts{8, 3};
  CHECK(experts.count(0) == 3);
  CHECK(experts.count(1) == 3);
  CHECK(experts.count(2) == 2);
}
