// SPDX-License-Identifier: Apache-2.0
// Floats to elements as files have them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.hpp"

namespace tessera::checkpoint {

/// Converts `count` floats to little-endian f32, bf16, f16 (to nearest even; NaN stays NaN) or f64.
/// Gives the index of the first finite value that became infinite, -1 if there is none. No
/// alignment needed; the ranges may not overlap. local.
std::int64_t narrow(Dtype dtype, const float* from, std::int64_t count, std::byte* to);

}  // namespace tessera::checkpoint
