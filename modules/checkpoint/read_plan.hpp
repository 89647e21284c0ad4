// SPDX-License-Identifier: Apache-2.0
// Which byte ranges of which tensors this rank reads and where their elements go, from headers
// alone.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "comm/process_grid.hpp"
#include "tessera/checkpoint/encoding.hpp"
#include "transpose.hpp"

namespace tessera::checkpoint {

/// A run of one tensor's elements that are in Tessera's order: a part of a parameter within this
/// rank's slice of it.
struct PartRead {
  const Parameter* parameter = nullptr;
  Encoding encoding = Encoding::plain;
  const TensorInfo* values = nullptr;
  const TensorInfo* scales = nullptr;
  std::int64_t tensor_begin = 0;     ///< of the first element in the tensor
  std::int64_t parameter_begin = 0;  ///< of the first element in the parameter
  std::int64_t num_elements = 0;
  std::int64_t shard_offset = 0;  ///< of the first element [elements]

  /// Rows of the FP8 scales that the elements need.
  Range scale_rows() const;
  /// Bytes read from the file, scales included.
  std::int64_t bytes() const;
};

/// A transposed tensor and this rank's slice of it.
struct ExchangedRead {
  TransposedRead read;
  Slice slice;
};

struct ReadPlan {
  std::vector<PartRead> parts;
  std::vector<ExchangedRead> exchanged;  ///< alike on all ranks of the replica group, slices apart
  std::int64_t planned_bytes = 0;        ///< that this rank will read
  std::int64_t staging_bytes = 0;        ///< that it needs for that, <= the bound
  std::unique_ptr<std::byte[]> staging;  ///< the memory itself
};

/// The ranks of a replica group tell each other their slices of the transposed tensors; the rest
/// follows from the headers. The plan points into `source` and `parameters`. collective over
/// grid.world(); errors are agreed.
ReadPlan make_read_plan(const comm::ProcessGrid& grid, const Source& source,
                        std::span<const Parameter> parameters, std::span<const Slice> slices,
                        std::int64_t buffer_bytes);

/// The same for parameters whose tensors are as Tessera has them: tensors[i] is that of
/// parameters[i]. The plan points into both. Throws Error::internal if a slice does not fit,
/// Error::usage if the buffer is too small. local.
ReadPlan plan_tensors(std::span<const Parameter> parameters,
                      std::span<const TensorInfo* const> tensors, std::span<const Slice> slices,
                      std::int64_t shard_size, std::int64_t buffer_bytes);

}  // namespace tessera::checkpoint
