// SPDX-License-Identifier: Apache-2.0
// Which byte ranges of which tensors this rank reads and where their elements go, from headers
// alone.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "comm/process_grid.hpp"
#include "hugging_face_directory.hpp"
#include "transpose.hpp"

namespace tessera::checkpoint {

/// One byte range of a file whose elements are in Tessera's order.
struct ContiguousRead {
  const StoredTensor* tensor = nullptr;
  std::int64_t offset_bytes = 0;  ///< in the file
  std::int64_t num_elements = 0;
  std::int64_t shard_offset = 0;  ///< of the first one [elements]

  std::int64_t element_bytes() const { return std::int64_t(size_of(tensor->info.dtype)); }
};

/// A transposed tensor and this rank's slice of it.
struct ExchangedRead {
  TransposedRead read;
  Slice slice;
};

struct ReadPlan {
  std::vector<ContiguousRead> contiguous;
  std::vector<ExchangedRead> exchanged;  ///< alike on all ranks of the replica group, slices apart
  std::int64_t planned_bytes = 0;        ///< that this rank will read
  std::int64_t staging_bytes = 0;        ///< that it needs for that, <= the bound
  std::unique_ptr<std::byte[]> staging;  ///< the memory itself
};

using TensorLookup = std::function<const StoredTensor*(const Parameter&)>;

/// The ranks of a replica group tell each other their slices of the transposed tensors; the rest
/// follows from the headers. collective over grid.world(); errors are agreed.
ReadPlan make_read_plan(const comm::ProcessGrid& grid, std::span<const Parameter> parameters,
                        std::span<const Slice> slices, const TensorLookup& lookup,
                        std::int64_t buffer_bytes);

}  // namespace tessera::checkpoint
