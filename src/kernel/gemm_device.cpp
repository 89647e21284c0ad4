// SPDX-License-Identifier: Apache-2.0
// Matrix products on a device: contracts, empty products, biases, and the call of cuBLAS. A bias is
// put where the product then adds to it, so that a sum is rounded once.
#include <vector>

#include "kernel/gemm_contract.hpp"
#include "kernel/gemm_cublas.hpp"
#include "kernel/launch.hpp"

namespace tessera::kernel {
namespace {

/// Each row of `batch` matrices becomes the bias, zeros where that is null.
template <class T, class TC>
void fill_rows(const Execution& execution, std::int64_t batch, const Operand<TC>& c,
               std::int64_t batch_stride, const T* bias) {
  TC* const first = c.data;
  const std::int64_t rows = c.rows, cols = c.cols, stride = c.stride;
  Kokkos::parallel_for(
      "tessera::fill_rows", team_per_row(execution, batch * rows, cols),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t row = member.league_rank() % rows;
        TC* const to = first + member.league_rank() / rows * batch_stride + row * stride;
        Kokkos::parallel_for(Kokkos::TeamVectorRange(member, cols), [&](const std::int64_t col) {
          to[col] = TC(bias == nullptr ? 0.0f : static_cast<float>(bias[col]));
        });
      });
}

template <class TC>
bool is_empty(const Operand<TC>& c) {
  return c.rows == 0 || c.cols == 0;
}

}  // namespace

const char* bf16_product_backend() { return "cuBLAS"; }

template <class T, class TC>
void gemm_batched(const Execution& execution, std::int64_t batch, Operand<const T> a,
                  std::int64_t a_batch_stride, Operand<const T> b, std::int64_t b_batch_stride,
                  Operand<TC> c, std::int64_t c_batch_stride, Into into) {
  expect_conformable(a, b, c);
  if (batch == 0 || is_empty(c)) return;
  if (a.op_cols() > 0) {
    cublas::gemm_batched(execution, batch, a, a_batch_stride, b, b_batch_stride, c, c_batch_stride,
                         into);
  } else if (into != Into::accumulate) {
    fill_rows<T>(execution, batch, c, c_batch_stride, nullptr);
  }
}

template <class T, class TC>
void gemm(const Execution& execution, Operand<const T> a, Operand<const T> b, Operand<TC> c,
          Into into) {
  gemm_batched(execution, 1, a, 0, b, 0, c, 0, into);
}

template <class T, class TC>
void gemm_with_bias(const Execution& execution, Operand<const T> a, Operand<const T> b,
                    const T* bias, Operand<TC> c) {
  if (bias == nullptr) return gemm(execution, a, b, c);
  expect_conformable(a, b, c);
  if (is_empty(c)) return;
  fill_rows(execution, 1, c, 0, bias);
  gemm(execution, a, b, c, Into::accumulate);
}

template <class T, class TC>
void gemm_grouped(const Execution& execution, std::span<const Product<T, TC>> products, Into into) {
  std::vector<Product<T, TC>> group;
  std::vector<float> keep;
  for (const auto& p : products) {
    expect_conformable(p.a, p.b, p.c);
    TESSERA_EXPECT(p.bias == nullptr || into != Into::accumulate);
    if (is_empty(p.c)) continue;
    const bool is_filled = into != Into::accumulate && (p.bias != nullptr || p.a.op_cols() == 0);
    if (is_filled) fill_rows(execution, 1, p.c, 0, p.bias);
    if (p.a.op_cols() == 0) continue;
    group.push_back(p);
    keep.push_back(is_filled || into == Into::accumulate ? 1.0f : 0.0f);
  }
  if (!group.empty()) cublas::gemm_grouped<T, TC>(execution, group, keep);
}

#define TESSERA_INSTANTIATE(T, TC)                                                             \
  template void gemm(const Execution&, Operand<const T>, Operand<const T>, Operand<TC>, Into); \
  template void gemm_with_bias(const Execution&, Operand<const T>, Operand<const T>, const T*, \
                               Operand<TC>);                                                   \
  template void gemm_batched(const Execution&, std::int64_t, Operand<const T>, std::int64_t,   \
                             Operand<const T>, std::int64_t, Operand<TC>, std::int64_t, Into); \
  template void gemm_grouped(const Execution&, std::span<const Product<T, TC>>, Into);
TESSERA_INSTANTIATE(float, float)
TESSERA_INSTANTIATE(bf16, float)
TESSERA_INSTANTIATE(bf16, bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
