// SPDX-License-Identifier: Apache-2.0
// Matrix products by oneDNN: all of f32, and bf16 on processors without the packed product.
#pragma once

#include "kernel/gemm.hpp"

namespace tessera::kernel::onednn {

/// kernel::gemm_batched of conformable operands that are ready, with m, n, k and batch > 0. local.
template <class T, class TC>
void gemm_batched(std::int64_t batch, Operand<const T> a, std::int64_t a_batch_stride,
                  Operand<const T> b, std::int64_t b_batch_stride, Operand<TC> c,
                  std::int64_t c_batch_stride, Into into);

}  // namespace tessera::kernel::onednn
