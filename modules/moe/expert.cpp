// SPDX-License-Identifier: Apache-2.0
#include <tessera/moe/expert.hpp>

#include "kernel/gemm.hpp"
#include "kernel/rows.hpp"

namespace tessera::moe {
namespace {

using kernel::Into;
using kernel::Operand;

/// Rows [begin, end) of a contiguous matrix.
template <class T, class V>
Operand<T> rows_of(const V& matrix, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = matrix.extent(1);
  return {matrix.data() + begin * width, end - begin, width, width};
}

template <class T>
kernel::Vector<T> flat(const kernel::Matrix<T>& matrix) {
  return kernel::Vector<T>(matrix.data(), matrix.size());
}

/// Expert e's matrix in an expert-major tensor [E_l, rows, cols].
template <class T>
Operand<T> matrix_of(T* tensor, std::int64_t expert, std::int64_t rows, std::int64_t cols) {
  return {tensor + expert * rows * cols, rows, cols, cols};
}

template <class T>
void add_bias_gradients(const kernel::Execution& execution,
                        std::span<const std::int64_t> expert_offset, kernel::Matrix<const T> drows,
                        float* dbias) {
  if (dbias == nullptr) return;
  const std::int64_t width = drows.extent(1);
  for (std::size_t e = 0; e + 1 < expert_offset.size(); ++e) {
    const std::int64_t begin = expert_offset[e], end = expert_offset[e + 1];
    if (begin == end) continue;
    kernel::add_column_sums<T>(
        execution, kernel::Matrix<const T>(drows.data() + begin * width, end - begin, width),
        kernel::Vector<float>(dbias + e * width, width));
  }
}

/// For each expert e with rows: body(e, first row, one past the last row).
template <class Body>
void for_each_expert(std::span<const std::int64_t> expert_offset, const Body& body) {
  for (std::size_t e = 0; e + 1 < expert_offset.size(); ++e) {
    if (expert_offset[e] != expert_offset[e + 1]) {
      body(static_cast<std::int64_t>(e), expert_offset[e], expert_offset[e + 1]);
    }
  }
}

}  // namespace

template <class T>
void expert_forward(const kernel::Execution& execution, const ExpertWeights<T>& weights,
                    std::span<const std::int64_t> expert_offset,
                    kernel::Vector<const std::int32_t> row_expert, kernel::Matrix<T> rows,
                    ExpertSaved<T>& saved, kernel::Matrix<T> outputs) {
  const std::int64_t h = weights.hidden_size, i = weights.intermediate_size;
  const std::int64_t num_rows = rows.extent(0), experts = weights.local_experts;
  saved = {rows, kernel::new_matrix<float>("expert hidden", num_rows, 2 * i),
           kernel::new_matrix<T>("expert activated", num_rows, i)};
  for_each_expert(expert_offset, [&](std::int64_t e, std::int64_t begin, std::int64_t end) {
    kernel::gemm<T, float>(execution, rows_of<const T>(rows, begin, end),
                           matrix_of(weights.gate_up, e, 2 * i, h).t(),
                           rows_of<float>(saved.hidden, begin, end));
  });
  const std::int64_t biased = weights.gate_up_bias == nullptr ? 0 : experts;
  kernel::swiglu_forward<T>(execution, weights.activation, row_expert,
                            kernel::Matrix<const T>(weights.gate_up_bias, biased, 2 * i),
                            saved.hidden, saved.activated);
  const auto wide_outputs = kernel::new_matrix<float>("expert outputs", num_rows, h);
  for_each_expert(expert_offset, [&](std::int64_t e, std::int64_t begin, std::int64_t end) {
    kernel::gemm<T, float>(execution, rows_of<const T>(saved.activated, begin, end),
                           matrix_of(weights.down, e, h, i).t(),
                           rows_of<float>(wide_outputs, begin, end));
  });
  if (weights.down_bias != nullptr) {
    kernel::add_row_bias<T>(execution, row_expert,
                            kernel::Matrix<const T>(weights.down_bias, experts, h), wide_outputs);
  }
  kernel::convert<float, T>(execution, flat(wide_outputs), flat(outputs));
}

template <class T>
void expert_backward(const kernel::Execution& execution, const ExpertWeights<T>& weights,
                     std::span<const std::int64_t> expert_offset, const ExpertSaved<T>& saved,
                     kernel::Matrix<const T> doutputs, const ExpertGradients& gradients,
                     kernel::Matrix<T> drows) {
  const std::int64_t h = weights.hidden_size, i = weights.intermediate_size;
  const std::int64_t num_rows = doutputs.extent(0);
  const auto dactivated = kernel::new_matrix<float>("dactivated", num_rows, i);
  add_bias_gradients<T>(execution, expert_offset, doutputs, gradients.down_bias);
  for_each_expert(expert_offset, [&](std::int64_t e, std::int64_t begin, std::int64_t end) {
    const auto dout = rows_of<const T>(doutputs, begin, end);
    kernel::gemm<T, float>(execution, dout.t(), rows_of<const T>(saved.activated, begin, end),
                           matrix_of(gradients.down, e, h, i), Into::accumulate);
    kernel::gemm<T, float>(execution, dout, matrix_of(weights.down, e, h, i),
                           rows_of<float>(dactivated, begin, end));
  });
  const auto dhidden = kernel::new_matrix<T>("dhidden", num_rows, 2 * i);
  kernel::swiglu_backward<T>(execution, weights.activation, saved.hidden, dactivated, dhidden);
  add_bias_gradients<T>(execution, expert_offset, dhidden, gradients.gate_up_bias);
  for_each_expert(expert_offset, [&](std::int64_t e, std::int64_t begin, std::int64_t end) {
    const auto dhid = rows_of<const T>(dhidden, begin, end);
    kernel::gemm<T, float>(execution, dhid.t(), rows_of<const T>(saved.rows, begin, end),
                           matrix_of(gradients.gate_up, e, 2 * i, h), Into::accumulate);
    kernel::gemm<T, T>(execution, dhid, matrix_of(weights.gate_up, e, 2 * i, h),
                       rows_of<T>(drows, begin, end));
  });
}

#define TESSERA_INSTANTIATE(T)                                                                    \
  template void expert_forward(const kernel::Execution&, const ExpertWeights<T>&,                 \
                               std::span<const std::int64_t>, kernel::Vector<const std::int32_t>, \
                               kernel::Matrix<T>, ExpertSaved<T>&, kernel::Matrix<T>);            \
  template void expert_backward(                                                                  \
      const kernel::Execution&, const ExpertWeights<T>&, std::span<const std::int64_t>,           \
      const ExpertSaved<T>&, kernel::Matrix<const T>, const ExpertGradients&, kernel::Matrix<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::moe
