// SPDX-License-Identifier: Apache-2.0
// First half of a layer: x <- x + attention(norm(x)), with grouped or latent heads.
#pragma once

#include "kernel/attention.hpp"
#include "kernel/rope.hpp"
#include "kernel/view.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/grouped_heads.hpp"
#include "tessera/model/latent_heads.hpp"
#include "tessera/model/unit_view.hpp"

namespace tessera::model {

/// What backward needs. T tokens in B sequences of S positions; G query heads per key-value head.
template <class T>
struct AttentionSaved {
  kernel::Matrix<float> x;     ///< [T, H] input of the layer
  kernel::Vector<float> rstd;  ///< [T]
  kernel::Matrix<T> normed;    ///< [T, H]
  kernel::Vector<T> q, k, v;   ///< [B, Hkv, S, G, D], [B, Hkv, S, D], [B, Hkv, S, Dv]
  GroupedHeadsSaved grouped;   ///< of one of the two
  LatentHeadsSaved<T> latent;
  kernel::Matrix<float> out;  ///< [T, Hq * Dv]
  kernel::Vector<float> lse;  ///< [B, Hkv, S, G]
};

template <class T>
class AttentionBlock {
 public:
  AttentionBlock(const ModelConfig& config, const kernel::RopeTable& rope, std::int64_t layer,
                 std::int64_t sequences, std::int64_t length);

  /// x [T, H] f32 (kept in saved) -> returns the residual stream after attention [T, H] f32. local.
  kernel::Matrix<float> forward(const UnitView<const T>& weights, kernel::Matrix<float> x,
                                AttentionSaved<T>& saved) const;
  /// forward() up to the output projection: all of `saved`, and nothing else. local.
  void attend(const UnitView<const T>& weights, kernel::Matrix<float> x,
              AttentionSaved<T>& saved) const;
  /// dx [T, H] f32: gradient after the block in, before the block out. Adds to gradients. local.
  void backward(const UnitView<const T>& weights, const AttentionSaved<T>& saved,
                const UnitView<float>& gradients, kernel::Matrix<float> dx) const;

 private:
  AttentionSaved<T> new_saved(kernel::Matrix<float> x) const;
  kernel::Matrix<T> output_backward(const UnitView<const T>& weights,
                                    const AttentionSaved<T>& saved,
                                    const UnitView<float>& gradients,
                                    kernel::Matrix<float> dx) const;
  /// [Hq] f32, or empty where the family has none.
  kernel::Vector<float> sinks(const UnitView<const T>& weights) const;
  std::int64_t out_width() const { return shape_.query_heads * shape_.value_size; }

  kernel::Execution execution_;
  const ModelConfig& config_;
  const kernel::RopeTable& rope_;
  kernel::AttentionShape shape_;
};

}  // namespace tessera::model
