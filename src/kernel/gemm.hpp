// SPDX-License-Identifier: Apache-2.0
// Matrix products: the one narrow interface through which every product goes. Backends:
// gemm_packed.cpp (bf16 with AMX or AVX-512), gemm_onednn.cpp (f32, other processors),
// gemm_cublas.cpp (on a GPU), gemm_reference.cpp (plain loops, the oracle).
#pragma once

#include <cstdint>
#include <span>

#include "kernel/launch.hpp"
#include "kernel/view.hpp"

namespace tessera::kernel {

/// A row-major matrix somewhere in Memory: element (i, j) at data[i * stride + j]. With
/// `transposed` the product uses its transpose.
template <class T>
struct Operand {
  T* data = nullptr;
  std::int64_t rows = 0;    ///< as stored
  std::int64_t cols = 0;    ///< as stored
  std::int64_t stride = 0;  ///< elements between rows, >= cols
  bool transposed = false;

  std::int64_t op_rows() const { return transposed ? cols : rows; }
  std::int64_t op_cols() const { return transposed ? rows : cols; }
  Operand t() const { return {data, rows, cols, stride, !transposed}; }
};

/// A view as an operand. rows x cols, contiguous.
template <class T>
Operand<T> operand(const Matrix<T>& view) {
  return {view.data(), static_cast<std::int64_t>(view.extent(0)),
          static_cast<std::int64_t>(view.extent(1)), static_cast<std::int64_t>(view.extent(1))};
}

/// What happens to C's old content. overwrite_far: overwritten, and not read soon, so that it need
/// not come into the caches; the same numbers.
enum class Into { overwrite, accumulate, overwrite_far };

/// C = op(A) op(B)  or  C += op(A) op(B).  Products and sums in f32. local; in the order of
/// `execution`, and complete on return where the host multiplies. A [m, k] and B [k, n] after their
/// transposition, both T in {float, bf16}; C [m, n] TC in {float, T}, never transposed, not
/// overlapping A or B. Any of m, n, k may be 0 (k = 0 gives zeros).
template <class T, class TC>
void gemm(const Execution& execution, Operand<const T> a, Operand<const T> b, Operand<TC> c,
          Into into = Into::overwrite);

/// `batch` products of equal shape; matrix i of an operand starts at data + i * batch_stride.
template <class T, class TC>
void gemm_batched(const Execution& execution, std::int64_t batch, Operand<const T> a,
                  std::int64_t a_batch_stride, Operand<const T> b, std::int64_t b_batch_stride,
                  Operand<TC> c, std::int64_t c_batch_stride, Into into = Into::overwrite);

/// C = op(A) op(B) with bias [n] added to each row before rounding; without one where bias is null.
/// Otherwise as gemm. local.
template <class T, class TC>
void gemm_with_bias(const Execution& execution, Operand<const T> a, Operand<const T> b,
                    const T* bias, Operand<TC> c);

/// One of a group of products.
template <class T, class TC>
struct Product {
  Operand<const T> a, b;
  Operand<TC> c;
  const T* bias = nullptr;  ///< as in gemm_with_bias; only where C is overwritten
};

/// Products of several sizes, as the experts have them; otherwise as gemm and gemm_with_bias. Their
/// results do not overlap. local.
template <class T, class TC>
void gemm_grouped(const Execution& execution, std::span<const Product<T, TC>> products,
                  Into into = Into::overwrite);

/// Whether a group costs less than its products one by one, as on a GPU. A host had better finish
/// all that it does with one product's result while that is in cache.
inline constexpr bool groups_are_faster = !kernels_run_on_host;

/// Who multiplies bf16 here: "cuBLAS" on a GPU, else a packed backend's name or "oneDNN", chosen at
/// the first call by what the processor has, or by TESSERA_GEMM=amx|avx512_bf16|avx512_f32|onednn;
/// throws usage if that cannot be had. local.
const char* bf16_product_backend();

namespace reference {
/// The same by plain loops with f64 sums. Host memory.
template <class T, class TC>
void gemm(Operand<const T> a, Operand<const T> b, Operand<TC> c, Into into = Into::overwrite);
}  // namespace reference

}  // namespace tessera::kernel
