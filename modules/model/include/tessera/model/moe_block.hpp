// SPDX-License-Identifier: Apache-2.0
// Second half of a layer: x + combine(expert(dispatch(norm(x)))), routed by the router, forward and
// backward. The residual stream and the router see f32, the experts T.
#pragma once

#include "kernel/view.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/mlp.hpp"
#include "tessera/model/unit_view.hpp"
#include "tessera/moe/dispatch.hpp"
#include "tessera/moe/expert.hpp"
#include "tessera/moe/load_balance.hpp"
#include "tessera/moe/route.hpp"

namespace tessera::model {

template <class T>
struct MoeSaved {
  kernel::Matrix<float> x;     ///< [T, H] residual stream before the block
  kernel::Vector<float> rstd;  ///< [T]
  moe::Routing routing;
  moe::DispatchHandle handle;
  moe::ExpertSaved<T> expert;
  kernel::Matrix<const T> outputs;  ///< [T * K, H] expert outputs, back at their tokens
  MlpSaved<T> shared;               ///< empty without shared experts
};

template <class T>
class MoeBlock {
 public:
  /// All of them outlive the block.
  MoeBlock(moe::TokenExchange& exchange, const ModelConfig& config)
      : exchange_(exchange),
        config_(config),
        shared_("mlp.shared_experts.", config.shared_intermediate_size) {}

  /// x [T, H] f32 (kept) -> the residual stream after the layer [T, H] f32. `balance` (or null)
  /// sees the routing. correction_bias [E] f32, or empty where the family has none. collective over
  /// the expert axis, also for a rank without tokens.
  kernel::Matrix<float> forward(const UnitView<const T>& dense, const UnitView<const T>& experts,
                                kernel::Vector<const float> correction_bias,
                                kernel::Matrix<float> x, moe::LoadBalance* balance,
                                MoeSaved<T>& saved) const;
  /// dx [T, H] f32: gradient after the block in, before the block out. aux_gradient: see
  /// moe::route_backward. Adds to the dense unit's gradient and puts the experts' `into` theirs.
  /// collective over the expert axis.
  void backward(const UnitView<const T>& dense, const UnitView<const T>& experts,
                kernel::Vector<const float> correction_bias, const MoeSaved<T>& saved,
                kernel::Vector<const float> aux_gradient, const UnitView<float>& dense_gradients,
                const UnitView<float>& expert_gradients, kernel::Into into,
                kernel::Matrix<float> dx) const;

 private:
  bool has_shared_experts() const { return config_.shared_intermediate_size > 0; }
  moe::ExpertWeights<T> expert_weights(const UnitView<const T>& experts) const;
  kernel::Matrix<float> dense_backward(const UnitView<const T>& dense,
                                       kernel::Vector<const float> correction_bias,
                                       const MoeSaved<T>& saved,
                                       kernel::Matrix<const float> dweight,
                                       kernel::Vector<const float> aux_gradient,
                                       const UnitView<float>& dense_gradients,
                                       const kernel::Matrix<float>& dy) const;

  kernel::Execution execution_;
  moe::TokenExchange& exchange_;
  const ModelConfig& config_;
  Mlp<T> shared_;
};

}  // namespace tessera::model
