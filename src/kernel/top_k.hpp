// SPDX-License-Identifier: Apache-2.0
// The router's choice: top-k of each row of logits, weighted by a softmax over the chosen or over
// all, and the plain softmax over all logits that the auxiliary loss needs. All f32.
#pragma once

#include "kernel/view.hpp"

namespace tessera::kernel {

/// The K largest logits of each row, largest first; of equal logits the lower index first.
/// logits [T, E] f32, index [T, K] i32, weight [T, K] f32 = softmax over the K chosen. K <= E.
/// local.
void top_k_softmax_forward(const Execution& execution, Matrix<const float> logits,
                           Matrix<std::int32_t> index, Matrix<float> weight);

/// dlogits[t, index[t, j]] = w_j (dw_j - sum_i w_i dw_i), zero for the others. dlogits is
/// overwritten. local. index, weight, dweight [T, K]; dlogits [T, E] f32.
void top_k_softmax_backward(const Execution& execution, Matrix<const std::int32_t> index,
                            Matrix<const float> weight, Matrix<const float> dweight,
                            Matrix<float> dlogits);

/// The same choice; weight [T, K] = softmax over all E, not divided by the sum of the chosen.
/// local.
void top_k_probability_forward(const Execution& execution, Matrix<const float> logits,
                               Matrix<std::int32_t> index, Matrix<float> weight);

/// dlogits[t, e] = p_e (dp_e - sum_i w_i dw_i), p = softmax(logits) over all E and dp_e = dw_j
/// where e is choice j, else 0: experts that are not chosen have a gradient too. dlogits is
/// overwritten. local.
void top_k_probability_backward(const Execution& execution, Matrix<const float> logits,
                                Matrix<const std::int32_t> index, Matrix<const float> weight,
                                Matrix<const float> dweight, Matrix<float> dlogits);

/// Adds the column sums of softmax(logits) over all E to probability_sum [E] f64, and the number of
/// times each expert is chosen to chosen_count [E] f64. local.
void router_statistics(const Execution& execution, Matrix<const float> logits,
                       Matrix<const std::int32_t> index, Vector<double> probability_sum,
                       Vector<double> chosen_count);

/// dlogits += p (g - sum_e p_e g_e), p = softmax(logits) over all E: the auxiliary loss's gradient
/// for gradient g [E] f32 with respect to each row's probabilities. local.
void softmax_backward_accumulate(const Execution& execution, Matrix<const float> logits,
                                 Vector<const float> g, Matrix<float> dlogits);

namespace reference {
void top_k_softmax_forward(Matrix<const float> logits, Matrix<std::int32_t> index,
                           Matrix<float> weight);
void top_k_softmax_backward(Matrix<const std::int32_t> index, Matrix<const float> weight,
                            Matrix<const float> dweight, Matrix<float> dlogits);
void top_k_probability_forward(Matrix<const float> logits, Matrix<std::int32_t> index,
                               Matrix<float> weight);
void top_k_probability_backward(Matrix<const float> logits, Matrix<const std::int32_t> index,
                                Matrix<const float> weight, Matrix<const float> dweight,
                                Matrix<float> dlogits);
void router_statistics(Matrix<const float> logits, Matrix<const std::int32_t> index,
                       Vector<double> probability_sum, Vector<double> chosen_count);
void softmax_backward_accumulate(Matrix<const float> logits, Vector<const float> g,
                                 Matrix<float> dlogits);
}  // namespace reference

}  // namespace tessera::kernel
