// SPDX-License-Identifier: Apache-2.0
// Elements as files have them to float.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.hpp"

namespace tessera::checkpoint {

/// Converts `count` little-endian elements of f32, bf16, f16 (exactly) or f64 (rounded) to float.
/// No alignment needed; the ranges may not overlap. local.
void widen(Dtype dtype, const std::byte* from, std::int64_t count, float* to);

}  // namespace tessera::checkpoint
