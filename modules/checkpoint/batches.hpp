// SPDX-License-Identifier: Apache-2.0
// A model's parameters in portions that all ranks read together in bounded memory: many small
// tensors at once, large ones piece by piece.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/parameter.hpp"

namespace tessera::checkpoint {

/// Elements of a batch that one rank holds at most, unless one expert is larger than all ranks'.
inline constexpr std::int64_t batch_elements_per_rank = 8 << 20;

struct Batch {
  std::span<const Parameter> parameters;  ///< that it has something of
  std::vector<Slice> slices;              ///< this rank's, one after the other in its shard
  std::int64_t shard_size = 0;            ///< elements of this rank
};

/// All elements of `parameters`, which must outlive the batches, each dealt evenly to the ranks. An
/// expert is never divided between batches: directories that hold it transposed are read in whole
/// experts. The same number of batches with the same parameters on every rank. local.
std::vector<Batch> plan_batches(std::span<const Parameter> parameters, int num_ranks, int rank,
                                std::int64_t elements_per_rank = batch_elements_per_rank);

}  // namespace tessera::checkpoint
