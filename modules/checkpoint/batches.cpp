// SPDX-License-Identifier: Apache-2.0
#include "batches.hpp"

#include <algorithm>

#include "tessera/checkpoint/fingerprint.hpp"

namespace tessera::checkpoint {
namespace {

// Elements that stay together.
std::int64_t indivisible(const Parameter& parameter) {
  return parameter.is_expert ? parameter.size() / parameter.shape[0]
                             : fingerprint_block(parameter.shape);
}

void add_share(const Parameter& parameter, std::int64_t begin, std::int64_t end, int num_ranks,
               int rank, Batch& batch) {
  Slice slice = even_share(parameter, begin, end, num_ranks, rank);
  slice.shard_offset = batch.shard_size;
  batch.shard_size += slice.size();
  if (slice.size() > 0) batch.slices.push_back(slice);
}

}  // namespace

std::vector<Batch> plan_batches(std::span<const Parameter> parameters, int num_ranks, int rank,
                                std::int64_t elements_per_rank) {
  const std::int64_t room = elements_per_rank * num_ranks;
  std::vector<Batch> batches;
  std::size_t first = 0;
  while (first < parameters.size()) {
    const Parameter& parameter = parameters[first];
    if (parameter.size() > room) {
      const std::int64_t unit = indivisible(parameter);
      const std::int64_t step = unit * std::max<std::int64_t>(1, room / unit);
      for (std::int64_t begin = 0; begin < parameter.size(); begin += step) {
        Batch& batch = batches.emplace_back(Batch{parameters.subspan(first, 1), {}, 0});
        add_share(parameter, begin, std::min(begin + step, parameter.size()), num_ranks, rank,
                  batch);
      }
      ++first;
      continue;
    }
    Batch& batch = batches.emplace_back();
    std::int64_t total = 0;
    std::size_t end = first;
    for (; end < parameters.size() && total + parameters[end].size() <= room; ++end) {
      total += parameters[end].size();
      add_share(parameters[end], 0, parameters[end].size(), num_ranks, rank, batch);
    }
    batch.parameters = parameters.subspan(first, end - first);
    first = end;
  }
  return batches;
}

}  // namespace tessera::checkpoint
