// SPDX-License-Identifier: Apache-2.0
// This rank's slices of a unit, by parameter.
#pragma once

#include <span>
#include <vector>

#include "base/parameter.hpp"

namespace tessera::checkpoint {

/// The slice of each parameter, in their order; an empty one where this rank has nothing. Throws
/// Error::internal if a slice belongs to none of the parameters, comes twice, or leaves its tensor
/// or the shard. local.
std::vector<Slice> slices_by_parameter(std::span<const Parameter> parameters,
                                       std::span<const Slice> slices, std::int64_t shard_size);

}  // namespace tessera::checkpoint
