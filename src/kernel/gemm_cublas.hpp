// SPDX-License-Identifier: Apache-2.0
// Matrix products by cuBLAS, on the stream of the execution space instance; no call waits.
// Row-major C = op(A) op(B) is column-major C^T = op(B)^T op(A)^T: the same memory, the operands
// exchanged, strides as leading dimensions.
//
// f32 is multiplied in f32 (no TF32), bf16 exactly and summed in f32 without the reduced precision
// reductions that cuBLAS would permit itself.
#pragma once

#include <span>

#include "kernel/gemm.hpp"

namespace tessera::kernel::cublas {

/// kernel::gemm_batched of conformable operands, with m, n, k and batch > 0. local; throws memory
/// or internal with cuBLAS's message.
template <class T, class TC>
void gemm_batched(const Execution& execution, std::int64_t batch, Operand<const T> a,
                  std::int64_t a_batch_stride, Operand<const T> b, std::int64_t b_batch_stride,
                  Operand<TC> c, std::int64_t c_batch_stride, Into into);

/// kernel::gemm_grouped without biases; m, n and k of each product > 0. `keep` has for each product
/// the factor of C's old content, 0 or 1. One call where cuBLAS has one (T = TC, operands aligned
/// as it wants), else a call for each product. local.
template <class T, class TC>
void gemm_grouped(const Execution& execution, std::span<const Product<T, TC>> products,
                  std::span<const float> keep);

}  // namespace tessera::kernel::cublas
