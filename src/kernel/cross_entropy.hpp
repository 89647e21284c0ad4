// SPDX-License-Identifier: Apache-2.0
// Cross-entropy of rows of logits, one chunk of rows at a time: loss and gradient in one pass, the
// gradient in the logits' place.
#pragma once

#include "kernel/gemm.hpp"
#include "kernel/view.hpp"

namespace tessera::kernel {

/// Label that takes no part in the loss (torch's ignore_index).
inline constexpr std::int64_t ignored_label = -100;

/// Returns the sum over rows of -log softmax(logits)[target], natural logarithm, f64; ignored rows
/// add nothing. local. logits [R, V] f32; target [R] i64 in [0, V) or ignored_label.
double cross_entropy(const Execution& execution, Matrix<const float> logits,
                     Vector<const std::int64_t> target);

/// The same, and dlogits = scale * (softmax - onehot) in T replaces the logits, zero rows where
/// ignored: dlogits_in<T>(logits) says where. local.
template <class T>
double cross_entropy_gradient(const Execution& execution, Matrix<float> logits,
                              Vector<const std::int64_t> target, float scale);

/// What is known of rows of logits whose classes come in chunks: an online softmax
/// (arXiv:1805.02867).
struct RowSums {
  Vector<float> maximum;  ///< [R] of the logits so far
  Vector<double> others;  ///< [R] sum of exp(logit - maximum) over all of them but the target
  Vector<float> target;   ///< [R] the target's logit, once it has come

  RowSums rows(std::int64_t begin, std::int64_t end) const;
};
/// Before the first chunk, local.
RowSums new_row_sums(const Execution& execution, std::int64_t rows);

/// Adds the classes [first, first + V_c). logits [R, V_c] f32; target [R] as above, over all
/// classes. local.
void add_classes(const Execution& execution, Matrix<const float> logits,
                 Vector<const std::int64_t> target, std::int64_t first, RowSums sums);
/// The loss when all classes have been added, as above. local.
double cross_entropy(const Execution& execution, RowSums sums, Vector<const std::int64_t> target);
/// When all have been added: logits [R, V_c] of a chunk, computed again, become their gradients
/// [R, V_c] T; dlogits_in<T>(logits) says where. local.
template <class T>
void classes_gradient(const Execution& execution, Matrix<float> logits,
                      Vector<const std::int64_t> target, std::int64_t first, float scale,
                      RowSums sums);

/// dlogits [R, V] T within the logits' memory: each row begins where that of the logits began.
template <class T>
Operand<const T> dlogits_in(const Matrix<float>& logits) {
  const auto rows = static_cast<std::int64_t>(logits.extent(0));
  const auto cols = static_cast<std::int64_t>(logits.extent(1));
  constexpr std::int64_t per_logit = sizeof(float) / sizeof(T);
  return {reinterpret_cast<const T*>(logits.data()), rows, cols, cols * per_logit};
}

namespace reference {
/// Both; dlogits [R, V] or empty (no gradient).
template <class T>
double cross_entropy(Matrix<const float> logits, Vector<const std::int64_t> target, float scale,
                     Matrix<T> dlogits);
}  // namespace reference

}  // namespace tessera::kernel
