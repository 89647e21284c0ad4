// SPDX-License-Identifier: Apache-2.0
// Deals the parameters of one flat unit to ranks as ZeRO-3 does, in plain loops: the local experts
// (or all of a dense tensor) at offsets that are multiples of 64 elements, then equal contiguous
// shards.
#pragma once

#include <algorithm>
#include <vector>

#include "base/block_distribution.hpp"
#include "base/parameter.hpp"
#include "comm/process_grid.hpp"

namespace tessera::test {

struct Shard {
  std::vector<Slice> slices;
  std::int64_t num_elements = 0;  ///< padding included
};

/// `parameters` are all dense or all expert ones; they must outlive the shard. local.
inline Shard deal_unit(const comm::ProcessGrid& grid, const std::vector<Parameter>& parameters) {
  constexpr std::int64_t alignment = 64;
  const auto padded = [](std::int64_t n) { return (n + alignment - 1) / alignment * alignment; };
  const bool is_expert = parameters.front().is_expert;
  const comm::Communicator& group = is_expert ? grid.replica() : grid.world();
  std::vector<Slice> whole;  // what the group holds together, at its offset in the flat unit
  std::int64_t total = 0;
  for (const Parameter& parameter : parameters) {
    std::int64_t begin = 0, end = parameter.size();
    if (is_expert) {
      const BlockDistribution experts{parameter.shape[0], grid.expert().size()};
      const std::int64_t each = parameter.size() / parameter.shape[0];
      begin = experts.begin(grid.expert().rank()) * each;
      end = experts.end(grid.expert().rank()) * each;
    }
    whole.push_back({&parameter, begin, end, total});
    total = padded(total + end - begin);
  }
  Shard shard;
  shard.num_elements = padded((total + group.size() - 1) / group.size());
  const std::int64_t first = group.rank() * shard.num_elements;
  for (const Slice& part : whole) {
    const std::int64_t low = std::max(part.shard_offset, first);
    const std::int64_t high = std::min(part.shard_offset + part.size(), first + shard.num_elements);
    if (low >= high) continue;
    shard.slices.push_back({part.parameter, part.begin + low - part.shard_offset,
                            part.begin + high - part.shard_offset, low - first});
  }
  return shard;
}

}  // namespace tessera::test
