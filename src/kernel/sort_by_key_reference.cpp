// SPDX-License-Identifier: Apache-2.0
// The sort by the standard library: what the tests hold the Kokkos version to. Host memory.
#include <algorithm>
#include <numeric>
#include <vector>

#include "kernel/sort_by_key.hpp"

namespace tessera::kernel::reference {

void sort_by_key(Vector<const std::int32_t> keys, std::int64_t group_size,
                 Vector<std::int64_t> count, Vector<std::int32_t> position,
                 Vector<std::int32_t> group) {
  std::vector<std::int32_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return keys(a) < keys(b); });
  std::fill_n(count.data(), count.size(), 0);
  for (std::size_t place = 0; place < order.size(); ++place) {
    ++count(keys(order[place]));
    position(order[place]) = static_cast<std::int32_t>(place);
    group(place) = static_cast<std::int32_t>(order[place] / group_size);
  }
}

}  // namespace tessera::kernel::reference
