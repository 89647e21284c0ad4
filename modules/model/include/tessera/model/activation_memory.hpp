// SPDX-License-Identifier: Apache-2.0
// How much memory a forward and backward pass takes besides parameters and gradients.
#pragma once

#include <cstdint>

#include "tessera/model/config.hpp"

namespace tessera::model {

/// Bytes that one rank's pass over `sequences` of `length` tokens holds at most: what all layers
/// keep for backward (the Saved structs of the blocks), the temporaries of the largest step, and
/// one chunk of logits. Experts are taken as equally loaded. `element_bytes` of the arithmetic: 4
/// or 2. local.
std::int64_t activation_bytes(const ModelConfig& config, std::int64_t sequences,
                              std::int64_t length, std::int64_t element_bytes);

}  // namespace tessera::model
