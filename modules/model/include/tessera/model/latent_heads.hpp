// SPDX-License-Identifier: Apache-2.0
// Queries, keys and values of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section
// 2.1): queries and key-values through low-rank bottlenecks with a norm each, and one rotated key
// part that all heads share.
#pragma once

#include <string>

#include "kernel/attention.hpp"
#include "kernel/latent_heads.hpp"
#include "kernel/rope.hpp"
#include "kernel/view.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/unit_view.hpp"

namespace tessera::model {

/// What backward needs of one bottleneck.
template <class T>
struct BottleneckSaved {
  kernel::Matrix<float> compressed;  ///< [T, rank]
  kernel::Vector<float> rstd;        ///< [T]
  kernel::Matrix<T> normed;          ///< [T, rank]
};

template <class T>
struct LatentHeadsSaved {
  BottleneckSaved<T> query;  ///< empty without q_lora_rank
  BottleneckSaved<T> key_value;
};

template <class T>
class LatentHeads {
 public:
  LatentHeads(const ModelConfig& config, const kernel::RopeTable& rope,
              const kernel::AttentionShape& shape);

  /// normed [T, H] T -> q, k, v in attention's layout, one head per group. local.
  void forward(const UnitView<const T>& weights, kernel::Matrix<const T> normed, T* q, T* k, T* v,
               LatentHeadsSaved<T>& saved) const;
  /// dq, dk, dv f32 in attention's layout; adds to the gradients and to dnormed [T, H]. local.
  void backward(const UnitView<const T>& weights, const LatentHeadsSaved<T>& saved,
                kernel::Matrix<const T> normed, const float* dq, const float* dk, const float* dv,
                const UnitView<float>& gradients, kernel::Matrix<float> dnormed) const;

 private:
  void normalize(const UnitView<const T>& weights, const std::string& norm,
                 BottleneckSaved<T>& saved) const;
  /// dnormed_rank [T, rank], after the norm in -> before the norm out.
  kernel::Matrix<float> normalize_backward(const UnitView<const T>& weights,
                                           const std::string& norm, const BottleneckSaved<T>& saved,
                                           kernel::Matrix<float> dnormed_rank,
                                           const UnitView<float>& gradients) const;
  void query_backward(const UnitView<const T>& weights, const LatentHeadsSaved<T>& saved,
                      kernel::Matrix<const T> normed, kernel::Matrix<const T> dprojected,
                      const UnitView<float>& gradients, kernel::Matrix<float> dnormed) const;
  std::int64_t query_width() const { return heads_.heads * (heads_.nope_size + heads_.rope_size); }
  std::int64_t up_width() const { return heads_.heads * (heads_.nope_size + heads_.value_size); }
  std::int64_t compressed_width() const { return config_.latent.key_value_rank + heads_.rope_size; }

  kernel::Execution execution_;
  const ModelConfig& config_;
  const kernel::RopeTable& rope_;
  kernel::LatentHeads heads_;
};

}  // namespace tessera::model
