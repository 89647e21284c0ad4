// SPDX-License-Identifier: Apache-2.0
// Second half of a layer without experts: x <- x + mlp(norm(x)).
#pragma once

#include "kernel/view.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/mlp.hpp"
#include "tessera/model/unit_view.hpp"

namespace tessera::model {

/// What backward needs.
template <class T>
struct MlpBlockSaved {
  kernel::Matrix<float> x;     ///< [T, H] residual stream before the block
  kernel::Vector<float> rstd;  ///< [T]
  kernel::Matrix<T> normed;    ///< [T, H]
  MlpSaved<T> mlp;
};

template <class T>
class MlpBlock {
 public:
  explicit MlpBlock(const ModelConfig& config)
      : config_(config), mlp_("mlp.", config.dense_intermediate_size) {}

  /// x [T, H] f32 (kept) -> the residual stream after the layer [T, H] f32. local.
  kernel::Matrix<float> forward(const UnitView<const T>& weights, kernel::Matrix<float> x,
                                MlpBlockSaved<T>& saved) const;
  /// dx [T, H] f32: gradient after the block in, before the block out. Adds to gradients. local.
  void backward(const UnitView<const T>& weights, const MlpBlockSaved<T>& saved,
                const UnitView<float>& gradients, kernel::Matrix<float> dx) const;

 private:
  kernel::Execution execution_;
  const ModelConfig& config_;
  Mlp<T> mlp_;
};

}  // namespace tessera::model
