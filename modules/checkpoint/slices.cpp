// SPDX-License-Identifier: Apache-2.0
#include "slices.hpp"

#include <algorithm>
#include <unordered_map>

#include "base/error.hpp"

namespace tessera::checkpoint {

std::vector<Slice> slices_by_parameter(std::span<const Parameter> parameters,
                                       std::span<const Slice> slices, std::int64_t shard_size) {
  std::unordered_map<std::string_view, std::size_t> index;
  std::vector<Slice> found;
  for (const Parameter& parameter : parameters) {
    index.emplace(parameter.name, found.size());
    found.push_back({&parameter, 0, 0, 0});
  }
  for (const Slice& slice : slices) {
    if (slice.size() == 0) continue;
    const auto at = index.find(slice.parameter->name);
    if (at == index.end())
      fail(ErrorKind::internal, "a slice belongs to none of the unit's parameters");
    Slice& place = found[at->second];
    const bool fits = 0 <= slice.begin && slice.begin < slice.end &&
                      slice.end <= place.parameter->size() && 0 <= slice.shard_offset &&
                      slice.shard_offset + slice.size() <= shard_size;
    if (!fits || place.size() != 0)
      fail(ErrorKind::internal,
           "slice [{}, {}) of '{}' leaves its tensor or shard, or is its second", slice.begin,
           slice.end, slice.parameter->name);
    place = {place.parameter, slice.begin, slice.end, slice.shard_offset};
  }
  return found;
}

}  // namespace tessera::checkpoint
