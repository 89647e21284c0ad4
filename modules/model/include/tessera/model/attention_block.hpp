// SPDX-License-Identifier: Apache-2.0
// First half of a layer: x + o_proj(attention(rope(qkv_proj(norm(x))))), forward and backward.
#pragma once

#include "kernel/attention.hpp"
#include "kernel/rope.hpp"
#include "kernel/view.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/unit_view.hpp"

namespace tessera::model {

/// What backward needs. T tokens = B sequences x S positions of this rank.
template <class T>
struct AttentionSaved {
  kernel::Matrix<float> x;     ///< [T, H] input of the layer
  kernel::Vector<float> rstd;  ///< [T]
  kernel::Matrix<T> normed;    ///< [T, H]
  kernel::Vector<T> q, k, v;   ///< [B, Hkv, S, G, D], [B, Hkv, S, D] twice
  kernel::Matrix<float> out;   ///< [T, Hq * D]
  kernel::Vector<float> lse;   ///< [B, Hkv, S, G]
};

template <class T>
class AttentionBlock {
 public:
  AttentionBlock(const ModelConfig& config, const kernel::RopeTable& rope, std::int64_t layer,
                 std::int64_t sequences, std::int64_t length);

  /// x [T, H] f32 (kept in saved) -> returns the residual stream after attention [T, H] f32. local.
  kernel::Matrix<float> forward(const UnitView<const T>& weights, kernel::Matrix<float> x,
                                AttentionSaved<T>& saved) const;
  /// dx [T, H] f32: gradient after the block in, before the block out. Adds to gradients. local.
  void backward(const UnitView<const T>& weights, const AttentionSaved<T>& saved,
                const UnitView<float>& gradients, kernel::Matrix<float> dx) const;

 private:
  kernel::Matrix<float> project(kernel::Matrix<const T> x, const UnitView<const T>& weights,
                                const char* weight, std::int64_t width) const;
  void project_backward(kernel::Matrix<const T> dprojected, kernel::Matrix<const T> normed,
                        const UnitView<const T>& weights, const UnitView<float>& gradients,
                        const std::string& name, kernel::Matrix<float> dnormed) const;
  kernel::Vector<const float> sinks(const UnitView<const T>& weights) const;

  kernel::Execution execution_;
  const ModelConfig& config_;
  const kernel::RopeTable& rope_;
  kernel::AttentionShape shape_;
};

}  // namespace tessera::model
