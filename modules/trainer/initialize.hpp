// SPDX-License-Identifier: Apache-2.0
// First values of parameters that a checkpoint lacks and the user permits to lack.
#pragma once

#include <span>

#include "base/parameter.hpp"
#include "tessera/checkpoint/key_report.hpp"

namespace tessera::trainer {

/// Fills shard[slice.shard_offset ...] with zeros, ones or normal values of mean 0 and
/// `standard_deviation`; as_model: norm weights one, other vectors (biases, sinks) zero, matrices
/// normal. A value depends on the parameter's name and the element's global position alone, so
/// every grid gets the same. local.
void initialize(const Slice& slice, checkpoint::Initialisation how, double standard_deviation,
                std::span<float> shard);

}  // namespace tessera::trainer
