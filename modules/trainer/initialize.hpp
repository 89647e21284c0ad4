// SPDX-License-Identifier: Apache-2.0
// First values of parameters that a checkpoint lacks and the user permits to lack.
#pragma once

#include <span>

#include "base/parameter.hpp"

namespace tessera::trainer {

/// Fills shard[slice.shard_offset ...]: norm weights one, other vectors (biases, sinks) zero,
/// matrices normal with mean 0 and `standard_deviation`. A value depends on the parameter's name
/// and the element's global position alone, so every grid gets the same. local.
void initialize(const Slice& slice, double standard_deviation, std::span<float> shard);

}  // namespace tessera::trainer
