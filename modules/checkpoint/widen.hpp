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

/// Elements [begin, begin + count) of an F8_E4M3 matrix of `num_columns` columns, each times the
/// factor of its block of 128 x 128, rounded to bf16: what DeepSeek's conversion of its released
/// weights gives. `from`: the first of the elements. `factors` [rows of blocks][columns of blocks]:
/// from block row `first_factor_row` on. local.
void widen_fp8(const std::byte* from, std::int64_t begin, std::int64_t count,
               std::int64_t num_columns, const float* factors, std::int64_t first_factor_row,
               float* to);

}  // namespace tessera::checkpoint
