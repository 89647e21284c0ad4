// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/moe/expert.hpp>

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

/// Expert e's matrix in an expert-major tensor [E_l, rows, cols].
template <class T>
Operand<T> matrix_of(T* tensor, std::int64_t expert, std::int64_t rows, std::int64_t cols) {
  return {tensor + expert * rows * cols, rows, cols, cols};
}

/// Rows [begin, end) of a contiguous matrix as a view.
template <class T, class V>
kernel::Matrix<T> view_of_rows(const V& matrix, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = matrix.extent(1);
  return kernel::Matrix<T>(matrix.data() + begin * width, end - begin, width);
}

template <class T>
T* row_of(T* matrix, std::int64_t row, std::int64_t width) {
  return matrix == nullptr ? nullptr : matrix + row * width;
}

/// dbias [width] = or += the sums of drows' columns; dbias may be null.
template <class T>
void put_bias_gradient(const kernel::Execution& execution, kernel::Matrix<const T> drows,
                       float* dbias, Into into) {
  if (dbias == nullptr) return;
  const kernel::Vector<float> sums(dbias, drows.extent(1));
  if (into == Into::overwrite) Kokkos::deep_copy(execution, sums, 0.0f);
  kernel::add_column_sums<T>(execution, drows, sums);
}

void fill_zeros(const kernel::Execution& execution, float* first, std::int64_t size) {
  if (first != nullptr) Kokkos::deep_copy(execution, kernel::Vector<float>(first, size), 0.0f);
}

/// The gradients of one expert.
ExpertGradients of_expert(const ExpertGradients& g, std::int64_t e, std::int64_t h,
                          std::int64_t i) {
  return {row_of(g.gate_up, e, 2 * i * h), row_of(g.gate_up_bias, e, 2 * i),
          row_of(g.down, e, h * i), row_of(g.down_bias, e, h)};
}

/// For each expert: body(e, first row, one past the last row).
template <class Body>
void for_each_expert(std::span<const std::int64_t> expert_offset, const Body& body) {
  for (std::size_t e = 0; e + 1 < expert_offset.size(); ++e) {
    body(static_cast<std::int64_t>(e), expert_offset[e], expert_offset[e + 1]);
  }
}

std::int64_t most_rows(std::span<const std::int64_t> expert_offset) {
  std::int64_t most = 0;
  for_each_expert(expert_offset, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    most = std::max(most, end - begin);
  });
  return most;
}

}  // namespace

template <class T>
void expert_forward(const kernel::Execution& execution, const ExpertWeights<T>& weights,
                    std::span<const std::int64_t> expert_offset, kernel::Matrix<T> rows,
                    ExpertSaved<T>& saved, kernel::Matrix<T> outputs) {
  const std::int64_t h = weights.hidden_size, i = weights.intermediate_size;
  const std::int64_t num_rows = rows.extent(0);
  saved = {rows, kernel::new_matrix<float>("expert hidden", num_rows, 2 * i),
           kernel::new_matrix<T>("expert activated", num_rows, i)};
  // One expert after the other, so that its rows are still in cache at each next step.
  for_each_expert(expert_offset, [&](std::int64_t e, std::int64_t begin, std::int64_t end) {
    if (begin == end) return;
    kernel::gemm_with_bias<T, float>(
        execution, rows_of<const T>(rows, begin, end), matrix_of(weights.gate_up, e, 2 * i, h).t(),
        row_of(weights.gate_up_bias, e, 2 * i), rows_of<float>(saved.hidden, begin, end));
    kernel::swiglu_forward<T>(execution, weights.activation, {}, {},
                              view_of_rows<float>(saved.hidden, begin, end),
                              view_of_rows<T>(saved.activated, begin, end));
    kernel::gemm_with_bias<T, T>(execution, rows_of<const T>(saved.activated, begin, end),
                                 matrix_of(weights.down, e, h, i).t(),
                                 row_of(weights.down_bias, e, h), rows_of<T>(outputs, begin, end));
  });
}

template <class T>
void expert_backward(const kernel::Execution& execution, const ExpertWeights<T>& weights,
                     std::span<const std::int64_t> expert_offset, const ExpertSaved<T>& saved,
                     kernel::Matrix<const T> doutputs, const ExpertGradients& gradients, Into into,
                     kernel::Matrix<T> drows) {
  const std::int64_t h = weights.hidden_size, i = weights.intermediate_size;
  const std::int64_t most = most_rows(expert_offset);
  const auto all_dactivated = kernel::new_matrix<float>("dactivated", most, i);
  const auto all_dhidden = kernel::new_matrix<T>("dhidden", most, 2 * i);
  for_each_expert(expert_offset, [&](std::int64_t e, std::int64_t begin, std::int64_t end) {
    const ExpertGradients d = of_expert(gradients, e, h, i);
    if (begin == end) {
      if (into == Into::accumulate) return;
      fill_zeros(execution, d.gate_up, 2 * i * h);
      fill_zeros(execution, d.gate_up_bias, 2 * i);
      fill_zeros(execution, d.down, h * i);
      fill_zeros(execution, d.down_bias, h);
      return;
    }
    const auto dout = rows_of<const T>(doutputs, begin, end);
    const auto dactivated = view_of_rows<float>(all_dactivated, 0, end - begin);
    kernel::gemm<T, float>(execution, dout.t(), rows_of<const T>(saved.activated, begin, end),
                           {d.down, h, i, i}, into);
    kernel::gemm<T, float>(execution, dout, matrix_of(weights.down, e, h, i),
                           kernel::operand(dactivated));
    put_bias_gradient<T>(execution, view_of_rows<const T>(doutputs, begin, end), d.down_bias, into);

    const auto dhidden = view_of_rows<T>(all_dhidden, 0, end - begin);
    kernel::swiglu_backward<T>(execution, weights.activation,
                               view_of_rows<const float>(saved.hidden, begin, end), dactivated,
                               dhidden);
    const auto dhid = rows_of<const T>(dhidden, 0, end - begin);
    kernel::gemm<T, float>(execution, dhid.t(), rows_of<const T>(saved.rows, begin, end),
                           {d.gate_up, 2 * i, h, h}, into);
    kernel::gemm<T, T>(execution, dhid, matrix_of(weights.gate_up, e, 2 * i, h),
                       rows_of<T>(drows, begin, end));
    put_bias_gradient<T>(execution, dhidden, d.gate_up_bias, into);
  });
}

#define TESSERA_INSTANTIATE(T)                                                                    \
  template void expert_forward(const kernel::Execution&, const ExpertWeights<T>&,                 \
                               std::span<const std::int64_t>, kernel::Matrix<T>, ExpertSaved<T>&, \
                               kernel::Matrix<T>);                                                \
  template void expert_backward(const kernel::Execution&, const ExpertWeights<T>&,                \
                                std::span<const std::int64_t>, const ExpertSaved<T>&,             \
                                kernel::Matrix<const T>, const ExpertGradients&, Into,            \
                                kernel::Matrix<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::moe
