// SPDX-License-Identifier: Apache-2.0
// Matrix products by plain loops with f64 sums: the oracle of every backend's tests.
#include "base/contract.hpp"
#include "kernel/gemm.hpp"

namespace tessera::kernel::reference {
namespace {

template <class T>
double element(const Operand<const T>& x, std::int64_t row, std::int64_t col) {
  const std::int64_t at = x.transposed ? col * x.stride + row : row * x.stride + col;
  return static_cast<double>(static_cast<float>(x.data[at]));
}

}  // namespace

template <class T, class TC>
void gemm(Operand<const T> a, Operand<const T> b, Operand<TC> c, Into into) {
  TESSERA_EXPECT(!c.transposed);
  TESSERA_EXPECT(a.op_rows() == c.rows && b.op_cols() == c.cols && a.op_cols() == b.op_rows());
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (std::int64_t j = 0; j < c.cols; ++j) {
      TC& result = c.data[i * c.stride + j];
      double sum = into == Into::accumulate ? static_cast<float>(result) : 0.0;
      for (std::int64_t k = 0; k < a.op_cols(); ++k) sum += element(a, i, k) * element(b, k, j);
      result = TC(static_cast<float>(sum));
    }
  }
}

template void gemm(Operand<const float>, Operand<const float>, Operand<float>, Into);
template void gemm(Operand<const bf16>, Operand<const bf16>, Operand<float>, Into);
template void gemm(Operand<const bf16>, Operand<const bf16>, Operand<bf16>, Into);

}  // namespace tessera::kernel::reference
