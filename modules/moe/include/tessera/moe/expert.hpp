// SPDX-License-Identifier: Apache-2.0
// The local experts' MLPs on rows grouped by expert: up projection, gated activation, down
// projection. Third stage of the MoE layer. An expert without rows costs nothing and gets a zero
// gradient.
#pragma once

#include <cstdint>
#include <span>

#include "kernel/gemm.hpp"
#include "kernel/swiglu.hpp"
#include "kernel/view.hpp"

namespace tessera::moe {

/// Weights of the E_l local experts, each tensor expert-major. Pointers into a gathered unit.
template <class T>
struct ExpertWeights {
  std::int64_t local_experts = 0;
  std::int64_t hidden_size = 0;        ///< H
  std::int64_t intermediate_size = 0;  ///< I
  const T* gate_up = nullptr;          ///< [E_l, 2I, H], gate and up as the activation has them
  const T* gate_up_bias = nullptr;     ///< [E_l, 2I] or null
  const T* down = nullptr;             ///< [E_l, H, I]
  const T* down_bias = nullptr;        ///< [E_l, H] or null
  kernel::Swiglu activation;
};

/// Gradients of the same, f32. The biases' may be null.
struct ExpertGradients {
  float* gate_up = nullptr;
  float* gate_up_bias = nullptr;
  float* down = nullptr;
  float* down_bias = nullptr;
};

/// What backward needs from forward; it computes the activation again from hidden.
template <class T>
struct ExpertSaved {
  kernel::Matrix<T> rows;  ///< [N, H] input
  kernel::Matrix<float>
      hidden;  ///< [N, 2I] with bias, before the activation; rounded to T only after it
};

/// rows [N, H], grouped: expert e has rows [expert_offset[e], expert_offset[e + 1]). Overwrites
/// outputs [N, H], which may be memory that other ranks will read. local.
template <class T>
void expert_forward(const kernel::Execution& execution, const ExpertWeights<T>& weights,
                    std::span<const std::int64_t> expert_offset, kernel::Matrix<T> rows,
                    ExpertSaved<T>& saved, kernel::Matrix<T> outputs);

// Backward in two parts, so that rows are on their way to their tokens while the second is
// computed. Gradients are added to, or overwritten where a buffer is new: experts without rows then
// get zeros.

/// doutputs [N, H] T, not read after it; overwrites drows [N, H] T, which is another matrix. Puts
/// the gradients of down and its bias. Returns the gradient of hidden [N, 2I] T for the second
/// part. local.
template <class T>
kernel::Matrix<const T> expert_backward_rows(const kernel::Execution& execution,
                                             const ExpertWeights<T>& weights,
                                             std::span<const std::int64_t> expert_offset,
                                             const ExpertSaved<T>& saved,
                                             kernel::Matrix<const T> doutputs,
                                             const ExpertGradients& gradients, kernel::Into into,
                                             kernel::Matrix<T> drows);
/// Puts the gradients of gate_up and its bias. local.
template <class T>
void expert_backward_gate_up(const kernel::Execution& execution, const ExpertWeights<T>& weights,
                             std::span<const std::int64_t> expert_offset,
                             const ExpertSaved<T>& saved, kernel::Matrix<const T> dhidden,
                             const ExpertGradients& gradients, kernel::Into into);

}  // namespace tessera::moe
