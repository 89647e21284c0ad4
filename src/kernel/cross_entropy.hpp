// SPDX-License-Identifier: Apache-2.0
// Cross-entropy of rows of logits, one chunk of rows at a time: loss and gradient in one pass.
#pragma once

#include "kernel/view.hpp"

namespace tessera::kernel {

/// Label that takes no part in the loss (torch's ignore_index).
inline constexpr std::int64_t ignored_label = -100;

/// Returns the sum over rows of -log softmax(logits)[target], natural logarithm, f64; ignored rows
/// add nothing. dlogits = scale * (softmax - onehot), zero rows where ignored; dlogits may be empty
/// (no gradient) and, for T = float, may be `logits` itself. local. logits [R, V] f32; target [R]
/// i64 in [0, V) or ignored_label; dlogits [R, V] T.
template <class T>
double cross_entropy(const Execution& execution, Matrix<const float> logits,
                     Vector<const std::int64_t> target, float scale, Matrix<T> dlogits);

namespace reference {
template <class T>
double cross_entropy(Matrix<const float> logits, Vector<const std::int64_t> target, float scale,
                     Matrix<T> dlogits);
}  // namespace reference

}  // namespace tessera::kernel
