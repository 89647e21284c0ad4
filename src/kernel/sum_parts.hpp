// SPDX-License-Identifier: Apache-2.0
// The sum of several arrays in a given order: what a reduction over ranks does with contributions
// that it can read in place.
#pragma once

#include <span>

#include "kernel/gemm.hpp"
#include "kernel/view.hpp"

namespace tessera::kernel {

/// sum[i] = or += parts[0][i] + parts[1][i] + ..., in this order, in f32: the same bits on every
/// call. Transport bf16: each part is rounded to bf16 first, and their sum once. parts [P] of
/// [n] f32; sum [n] f32, not overlapping them. local, host memory.
template <class Transport>
void sum_parts(const Execution& execution, std::span<const float* const> parts, Into into,
               Vector<float> sum);

}  // namespace tessera::kernel
