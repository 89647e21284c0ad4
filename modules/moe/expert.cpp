// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/moe/expert.hpp>
#include <vector>

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
  if (into != Into::accumulate) Kokkos::deep_copy(execution, sums, 0.0f);
  kernel::add_column_sums<T>(execution, drows, sums);
}

/// The rows of one expert.
struct ExpertRows {
  std::int64_t expert, begin, end;
};

/// body(experts) for experts with rows, as many at a time as the products had better have: on a
/// host one, so that its rows are still in cache at each next step.
template <class Body>
void for_groups(std::span<const std::int64_t> expert_offset, const Body& body) {
  std::vector<ExpertRows> group;
  for (std::size_t e = 0; e + 1 < expert_offset.size(); ++e) {
    if (expert_offset[e] == expert_offset[e + 1]) continue;
    group.push_back({static_cast<std::int64_t>(e), expert_offset[e], expert_offset[e + 1]});
    if (kernel::groups_are_faster) continue;
    body(group);
    group.clear();
  }
  if (!group.empty()) body(group);
}

/// Most rows of a group.
std::int64_t most_rows(std::span<const std::int64_t> expert_offset) {
  std::int64_t most = 0;
  for_groups(expert_offset, [&](const std::vector<ExpertRows>& group) {
    most = std::max(most, group.back().end - group.front().begin);
  });
  return most;
}

/// One product for each expert of a group: make(expert, its rows' begin and end).
template <class T, class TC, class Make>
void multiply(const kernel::Execution& execution, const std::vector<ExpertRows>& group, Into into,
              const Make& make) {
  std::vector<kernel::Product<T, TC>> products;
  for (const auto& [e, begin, end] : group) products.push_back(make(e, begin, end));
  kernel::gemm_grouped<T, TC>(execution, products, into);
}

/// A gradient [E_l, size], or null, of experts without rows: zeros where it is overwritten.
void put_no_gradients(const kernel::Execution& execution,
                      std::span<const std::int64_t> expert_offset, float* gradient,
                      std::int64_t size, Into into) {
  if (gradient == nullptr || into == Into::accumulate) return;
  for (std::size_t e = 0; e + 1 < expert_offset.size(); ++e) {
    if (expert_offset[e] != expert_offset[e + 1]) continue;
    const auto expert = static_cast<std::int64_t>(e);
    Kokkos::deep_copy(execution, kernel::Vector<float>(gradient + expert * size, size), 0.0f);
  }
}

}  // namespace

template <class T>
void expert_forward(const kernel::Execution& execution, const ExpertWeights<T>& weights,
                    std::span<const std::int64_t> expert_offset, kernel::Matrix<T> rows,
                    ExpertSaved<T>& saved, kernel::Matrix<T> outputs) {
  const std::int64_t h = weights.hidden_size, i = weights.intermediate_size;
  const std::int64_t num_rows = rows.extent(0);
  saved = {rows, kernel::new_matrix<float>("expert hidden", num_rows, 2 * i)};
  const auto all_activated = kernel::new_matrix<T>("activated", most_rows(expert_offset), i);
  for_groups(expert_offset, [&](const std::vector<ExpertRows>& group) {
    multiply<T, float>(execution, group, Into::overwrite, [&](auto e, auto begin, auto end) {
      return kernel::Product<T, float>{
          rows_of<const T>(rows, begin, end), matrix_of(weights.gate_up, e, 2 * i, h).t(),
          rows_of<float>(saved.hidden, begin, end), row_of(weights.gate_up_bias, e, 2 * i)};
    });
    const std::int64_t first = group.front().begin, last = group.back().end;
    const auto activated = view_of_rows<T>(all_activated, 0, last - first);
    kernel::swiglu_forward<T>(execution, weights.activation, {}, {},
                              view_of_rows<float>(saved.hidden, first, last), activated);
    multiply<T, T>(execution, group, Into::overwrite, [&](auto e, auto begin, auto end) {
      return kernel::Product<T, T>{rows_of<const T>(activated, begin - first, end - first),
                                   matrix_of(weights.down, e, h, i).t(),
                                   rows_of<T>(outputs, begin, end),
                                   row_of(weights.down_bias, e, h)};
    });
  });
}

template <class T>
kernel::Matrix<const T> expert_backward_rows(const kernel::Execution& execution,
                                             const ExpertWeights<T>& weights,
                                             std::span<const std::int64_t> expert_offset,
                                             const ExpertSaved<T>& saved,
                                             kernel::Matrix<const T> doutputs,
                                             const ExpertGradients& gradients, Into into,
                                             kernel::Matrix<T> drows) {
  const std::int64_t h = weights.hidden_size, i = weights.intermediate_size;
  const std::int64_t most = most_rows(expert_offset);
  const auto all_dactivated = kernel::new_matrix<float>("dactivated", most, i);
  const auto all_activated = kernel::new_matrix<T>("activated", most, i);
  const auto dhidden = kernel::new_matrix<T>("dhidden", doutputs.extent(0), 2 * i);
  put_no_gradients(execution, expert_offset, gradients.down, h * i, into);
  put_no_gradients(execution, expert_offset, gradients.down_bias, h, into);
  for_groups(expert_offset, [&](const std::vector<ExpertRows>& group) {
    const std::int64_t first = group.front().begin, last = group.back().end;
    const auto dactivated = view_of_rows<float>(all_dactivated, 0, last - first);
    const auto activated = view_of_rows<T>(all_activated, 0, last - first);
    multiply<T, float>(execution, group, Into::overwrite, [&](auto e, auto begin, auto end) {
      return kernel::Product<T, float>{rows_of<const T>(doutputs, begin, end),
                                       matrix_of(weights.down, e, h, i),
                                       rows_of<float>(dactivated, begin - first, end - first)};
    });
    kernel::swiglu_backward<T>(execution, weights.activation,
                               view_of_rows<const float>(saved.hidden, first, last), dactivated,
                               view_of_rows<T>(dhidden, first, last), activated);
    multiply<T, float>(execution, group, into, [&](auto e, auto begin, auto end) {
      return kernel::Product<T, float>{rows_of<const T>(doutputs, begin, end).t(),
                                       rows_of<const T>(activated, begin - first, end - first),
                                       {gradients.down + e * h * i, h, i, i}};
    });
    multiply<T, T>(execution, group, Into::overwrite, [&](auto e, auto begin, auto end) {
      return kernel::Product<T, T>{rows_of<const T>(dhidden, begin, end),
                                   matrix_of(weights.gate_up, e, 2 * i, h),
                                   rows_of<T>(drows, begin, end)};
    });
    for (const auto& [e, begin, end] : group) {
      put_bias_gradient<T>(execution, view_of_rows<const T>(doutputs, begin, end),
                           row_of(gradients.down_bias, e, h), into);
    }
  });
  return dhidden;
}

template <class T>
void expert_backward_gate_up(const kernel::Execution& execution, const ExpertWeights<T>& weights,
                             std::span<const std::int64_t> expert_offset,
                             const ExpertSaved<T>& saved, kernel::Matrix<const T> dhidden,
                             const ExpertGradients& gradients, Into into) {
  const std::int64_t h = weights.hidden_size, i = weights.intermediate_size;
  put_no_gradients(execution, expert_offset, gradients.gate_up, 2 * i * h, into);
  put_no_gradients(execution, expert_offset, gradients.gate_up_bias, 2 * i, into);
  for_groups(expert_offset, [&](const std::vector<ExpertRows>& group) {
    multiply<T, float>(execution, group, into, [&](auto e, auto begin, auto end) {
      return kernel::Product<T, float>{rows_of<const T>(dhidden, begin, end).t(),
                                       rows_of<const T>(saved.rows, begin, end),
                                       {gradients.gate_up + e * 2 * i * h, 2 * i, h, h}};
    });
    for (const auto& [e, begin, end] : group) {
      put_bias_gradient<T>(execution, view_of_rows<const T>(dhidden, begin, end),
                           row_of(gradients.gate_up_bias, e, 2 * i), into);
    }
  });
}

#define TESSERA_INSTANTIATE(T)                                                                    \
  template void expert_forward(const kernel::Execution&, const ExpertWeights<T>&,                 \
                               std::span<const std::int64_t>, kernel::Matrix<T>, ExpertSaved<T>&, \
                               kernel::Matrix<T>);                                                \
  template kernel::Matrix<const T> expert_backward_rows(                                          \
      const kernel::Execution&, const ExpertWeights<T>&, std::span<const std::int64_t>,           \
      const ExpertSaved<T>&, kernel::Matrix<const T>, const ExpertGradients&, Into,               \
      kernel::Matrix<T>);                                                                         \
  template void expert_backward_gate_up(const kernel::Execution&, const ExpertWeights<T>&,        \
                                        std::span<const std::int64_t>, const ExpertSaved<T>&,     \
                                        kernel::Matrix<const T>, const ExpertGradients&, Into);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::moe
