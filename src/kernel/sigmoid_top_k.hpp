// SPDX-License-Identifier: Apache-2.0
// The router's choice by sigmoid scores within groups of experts, with a bias that counts for the
// choice alone (DeepSeek-V3, arXiv:2412.19437, section 2.1.2). All f32.
#pragma once

#include "kernel/view.hpp"

namespace tessera::kernel {

struct SigmoidChoice {
  bool normalize_chosen = true;      ///< weights divided by their sum over the chosen + 1e-20
  float scale = 1.0f;                ///< of the weights
  std::int64_t num_groups = 1;       ///< consecutive experts in equal groups
  std::int64_t num_kept_groups = 1;  ///< choices come from these; K <= their experts
};

/// score = sigmoid(logits), choice = score + correction_bias. Groups are ranked by the sum of their
/// two best choices (one, if a group has one expert); of the kept groups' experts the K best
/// choices, best first, are taken, of equal ones the lower index. weight = score of the chosen,
/// normalised and scaled as the options say. local.
/// logits [T, E]; correction_bias [E] or empty; index [T, K] i32; weight [T, K].
void sigmoid_top_k_forward(const Execution& execution, SigmoidChoice options,
                           Matrix<const float> logits, Vector<const float> correction_bias,
                           Matrix<std::int32_t> index, Matrix<float> weight);

/// dlogits[t, index[t, j]] = ds_j s_j (1 - s_j), zero for the others; with D = sum_i s_i + 1e-20
///   ds_j = scale / D (dw_j - sum_i dw_i s_i / D) if normalised, else scale dw_j.
/// dlogits is overwritten; the correction bias has no gradient. local.
void sigmoid_top_k_backward(const Execution& execution, SigmoidChoice options,
                            Matrix<const float> logits, Matrix<const std::int32_t> index,
                            Matrix<const float> dweight, Matrix<float> dlogits);

namespace reference {
void sigmoid_top_k_forward(SigmoidChoice options, Matrix<const float> logits,
                           Vector<const float> correction_bias, Matrix<std::int32_t> index,
                           Matrix<float> weight);
void sigmoid_top_k_backward(SigmoidChoice options, Matrix<const float> logits,
                            Matrix<const std::int32_t> index, Matrix<const float> dweight,
                            Matrix<float> dlogits);
}  // namespace reference

}  // namespace tessera::kernel
