// SPDX-License-Identifier: Apache-2.0
// The gated MLP that every token passes: of a layer without experts, or the shared experts of an
// MoE layer (DeepSeekMoE, arXiv:2401.06066, section 3.2).
#pragma once

#include <string>

#include "kernel/view.hpp"
#include "tessera/model/unit_view.hpp"

namespace tessera::model {

/// What backward needs, besides the input. I = intermediate size.
template <class T>
struct MlpSaved {
  kernel::Matrix<float> hidden;  ///< [T, 2I], gate and up
  kernel::Matrix<T> activated;   ///< [T, I]
};

template <class T>
class Mlp {
 public:
  /// `prefix` of its parameters: "mlp." or "mlp.shared_experts.".
  Mlp(std::string prefix, std::int64_t intermediate_size)
      : prefix_(std::move(prefix)), intermediate_size_(intermediate_size) {}

  /// x [T, H] T; adds to y [T, H] f32. local.
  void forward(const UnitView<const T>& weights, kernel::Matrix<const T> x, MlpSaved<T>& saved,
               kernel::Matrix<float> y) const;
  /// dy [T, H] T; adds to the gradients and to dx [T, H] f32. local.
  void backward(const UnitView<const T>& weights, const MlpSaved<T>& saved,
                kernel::Matrix<const T> x, kernel::Matrix<const T> dy,
                const UnitView<float>& gradients, kernel::Matrix<float> dx) const;

 private:
  std::string name(const char* projection, const char* suffix) const {
    return prefix_ + projection + suffix;
  }
  void add_hidden_bias(const UnitView<const T>& weights, kernel::Matrix<float> hidden) const;
  void hidden_bias_gradient(const UnitView<float>& gradients,
                            kernel::Matrix<const T> dhidden) const;

  kernel::Execution execution_;
  std::string prefix_;
  std::int64_t intermediate_size_;
};

}  // namespace tessera::model
