// SPDX-License-Identifier: Apache-2.0
// Weights alone, in bf16: for codes that evaluate a model and need no f32 master copy.
#pragma once

#include <span>

#include "base/dtype.hpp"
#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

/// As Source::load, rounded to bf16 on the way: `slices` of `parameters` into
/// shard[slice.shard_offset ...]. f32 values exist for one piece at a time: 4 Mi elements, or one
/// expert of a tensor that the file holds as [E, in, out]. Host memory. @pre options.scales is
/// null. collective over grid.world(); errors are agreed.
LoadReport load_bf16(const comm::ProcessGrid& grid, Source& source,
                     std::span<const Parameter> parameters, std::span<const Slice> slices,
                     std::span<bf16> shard, const LoadOptions& options);

}  // namespace tessera::checkpoint
