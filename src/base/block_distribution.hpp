// SPDX-License-Identifier: Apache-2.0
// How n consecutive items are dealt to p ranks: the first n % p ranks hold one more.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tessera {

struct BlockDistribution {
  std::int64_t num_items = 0;
  std::int64_t num_ranks = 1;

  std::int64_t begin(std::int64_t rank) const {
    return rank * (num_items / num_ranks) + std::min(rank, num_items % num_ranks);
  }
  std::int64_t end(std::int64_t rank) const { return begin(rank + 1); }
  std::int64_t count(std::int64_t rank) const { return end(rank) - begin(rank); }

  /// The rank that holds `item`.
  std::int64_t owner(std::int64_t item) const {
    const std::int64_t small = num_items / num_ranks, extra = num_items % num_ranks;
    const std::int64_t in_large = extra * (small + 1);
    return item < in_large ? item / (small + 1) : extra + (item - in_large) / small;
  }
};

}  // namespace tessera
