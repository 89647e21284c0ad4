// SPDX-License-Identifier: Apache-2.0
// Queries, keys and values of grouped-query attention (arXiv:2305.13245): projection, then where
// the family has them a norm (per head or over the whole projection) and a clamp, then rotation.
#pragma once

#include <string>

#include "kernel/attention.hpp"
#include "kernel/rope.hpp"
#include "kernel/view.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/unit_view.hpp"

namespace tessera::model {

/// What backward needs of one of q, k and v. Empty where nothing lies between projection and
/// rotation.
struct ProjectionSaved {
  kernel::Matrix<float> projected;  ///< [T, width], with bias
  kernel::Vector<float> rstd;       ///< [T] or [T * heads], of the norm
};

struct GroupedHeadsSaved {
  ProjectionSaved q, k, v;
};

template <class T>
class GroupedHeads {
 public:
  GroupedHeads(const ModelConfig& config, const kernel::RopeTable& rope,
               const kernel::AttentionShape& shape)
      : config_(config), rope_(rope), shape_(shape) {}

  /// normed [T, H] T -> q, k, v in attention's layout (see kernel/attention.hpp). local.
  void forward(const UnitView<const T>& weights, kernel::Matrix<const T> normed, T* q, T* k, T* v,
               GroupedHeadsSaved& saved) const;
  /// dq, dk, dv f32 in attention's layout; adds to the gradients and to dnormed [T, H]. local.
  void backward(const UnitView<const T>& weights, const GroupedHeadsSaved& saved,
                kernel::Matrix<const T> normed, const float* dq, const float* dk, const float* dv,
                const UnitView<float>& gradients, kernel::Matrix<float> dnormed) const;

 private:
  /// q, k or v: its parameters' prefix and its shape.
  struct Part {
    std::string name;        ///< "self_attn.q_proj"
    std::string norm;        ///< "self_attn.q_norm.weight", or empty: no norm
    std::int64_t heads = 0;  ///< of width head_size each
    std::int64_t group = 1;  ///< heads per key-value head
    bool rotates = true;
  };
  Part query() const;
  Part key() const;
  Part value() const;
  bool is_plain(const Part& part) const { return part.norm.empty() && config_.clip_qkv == 0.0; }

  void forward_part(const Part& part, const UnitView<const T>& weights,
                    kernel::Matrix<const T> normed, T* heads, ProjectionSaved& saved) const;
  void backward_part(const Part& part, const UnitView<const T>& weights,
                     const ProjectionSaved& saved, kernel::Matrix<const T> normed,
                     const float* dheads, const UnitView<float>& gradients,
                     kernel::Matrix<float> dnormed) const;
  kernel::Matrix<float> norm_forward(const Part& part, const UnitView<const T>& weights,
                                     const ProjectionSaved& saved) const;
  void norm_backward(const Part& part, const UnitView<const T>& weights,
                     const ProjectionSaved& saved, const UnitView<float>& gradients,
                     kernel::Matrix<float>& dprojected) const;
  kernel::Matrix<float> norm_rows(kernel::Matrix<float> projected) const;

  kernel::Execution execution_;
  const ModelConfig& config_;
  const kernel::RopeTable& rope_;
  kernel::AttentionShape shape_;
};

}  // namespace tessera::model
