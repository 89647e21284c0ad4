// SPDX-License-Identifier: Apache-2.0
// Gated activations of MLPs. Rows may belong to experts: row r adds bias[row_expert[r], :].
#pragma once

#include "kernel/activation.hpp"
#include "kernel/view.hpp"

namespace tessera::kernel {

/// Which activation; alpha and limit are the clamped one's.
struct Swiglu {
  Activation kind = Activation::clamped_swiglu;
  float alpha = 1.702f;
  float limit = 7.0f;
};

/// hidden [N, 2I] f32 gets bias added in place (kept for backward); activated [N, I] T. local.
/// bias [E_l, 2I] T or empty; row_expert [N] i32 = local expert of each row, or empty without bias.
template <class T>
void swiglu_forward(const Execution& execution, Swiglu options,
                    Vector<const std::int32_t> row_expert, Matrix<const T> bias,
                    Matrix<float> hidden, Matrix<T> activated);

/// dhidden [N, 2I] T from dactivated [N, I] f32 and the biased hidden of the forward pass. Unless
/// it is empty, activated [N, I] gets what the forward pass computed, so that it need not be kept.
/// local.
template <class T>
void swiglu_backward(const Execution& execution, Swiglu options, Matrix<const float> hidden,
                     Matrix<const float> dactivated, Matrix<T> dhidden, Matrix<T> activated = {});

namespace reference {
template <class T>
void swiglu_forward(Swiglu options, Vector<const std::int32_t> row_expert, Matrix<const T> bias,
                    Matrix<float> hidden, Matrix<T> activated);
template <class T>
void swiglu_backward(Swiglu options, Matrix<const float> hidden, Matrix<const float> dactivated,
                     Matrix<T> dhidden);
}  // namespace reference

}  // namespace tessera::kernel
