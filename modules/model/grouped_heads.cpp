// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/grouped_heads.hpp>

#include "kernel/rms_norm.hpp"
#include "kernel/rows.hpp"
#include "tessera/model/projection.hpp"

namespace tessera::model {

template <class T>
typename GroupedHeads<T>::Part GroupedHeads<T>::query() const {
  const bool has_norm = config_.query_key_norm != QueryKeyNorm::none;
  return {"self_attn.q_proj", has_norm ? "self_attn.q_norm.weight" : "", shape_.query_heads,
          shape_.group(), true};
}

template <class T>
typename GroupedHeads<T>::Part GroupedHeads<T>::key() const {
  const bool has_norm = config_.query_key_norm != QueryKeyNorm::none;
  return {"self_attn.k_proj", has_norm ? "self_attn.k_norm.weight" : "", shape_.kv_heads, 1, true};
}

template <class T>
typename GroupedHeads<T>::Part GroupedHeads<T>::value() const {
  return {"self_attn.v_proj", "", shape_.kv_heads, 1, false};
}

template <class T>
void GroupedHeads<T>::forward(const UnitView<const T>& weights, kernel::Matrix<const T> normed,
                              T* q, T* k, T* v, GroupedHeadsSaved& saved) const {
  forward_part(query(), weights, normed, q, saved.q);
  forward_part(key(), weights, normed, k, saved.k);
  forward_part(value(), weights, normed, v, saved.v);
}

template <class T>
void GroupedHeads<T>::backward(const UnitView<const T>& weights, const GroupedHeadsSaved& saved,
                               kernel::Matrix<const T> normed, const float* dq, const float* dk,
                               const float* dv, const UnitView<float>& gradients,
                               kernel::Matrix<float> dnormed) const {
  backward_part(query(), weights, saved.q, normed, dq, gradients, dnormed);
  backward_part(key(), weights, saved.k, normed, dk, gradients, dnormed);
  backward_part(value(), weights, saved.v, normed, dv, gradients, dnormed);
}

template <class T>
void GroupedHeads<T>::forward_part(const Part& part, const UnitView<const T>& weights,
                                   kernel::Matrix<const T> normed, T* heads,
                                   ProjectionSaved& saved) const {
  const std::int64_t width = part.heads * shape_.head_size;
  kernel::Matrix<float> rows;
  kernel::Vector<const T> bias;  // added while the heads are moved, where nothing comes before
  if (is_plain(part)) {
    rows = project<T>(execution_, normed, weights, part.name, width);
    bias = weights.vector(part.name + ".bias", width);
  } else {
    rows = saved.projected = project_biased<T>(execution_, normed, weights, part.name, width);
    if (!part.norm.empty()) {
      const std::int64_t num_rows = norm_rows(rows).extent(0);
      saved.rstd = kernel::new_vector<float>("head norm rstd", num_rows);
      rows = norm_forward(part, weights, saved);
    }
    if (config_.clip_qkv > 0.0) {
      const auto clipped = kernel::new_matrix<float>("clipped", rows.extent(0), width);
      kernel::clamp(execution_, static_cast<float>(config_.clip_qkv), rows, clipped);
      rows = clipped;
    }
  }
  if (part.rotates) {
    kernel::rope_forward<T>(execution_, rope_, shape_.sequences, shape_.kv_heads, part.group, rows,
                            bias, heads);
  } else {
    kernel::split_heads<T>(execution_, shape_.sequences, shape_.kv_heads, rows, bias, heads);
  }
}

template <class T>
void GroupedHeads<T>::backward_part(const Part& part, const UnitView<const T>& weights,
                                    const ProjectionSaved& saved, kernel::Matrix<const T> normed,
                                    const float* dheads, const UnitView<float>& gradients,
                                    kernel::Matrix<float> dnormed) const {
  const std::int64_t num_tokens = normed.extent(0), width = part.heads * shape_.head_size;
  const auto move_back = [&](const auto& rows) {
    using Element = typename std::decay_t<decltype(rows)>::non_const_value_type;
    if (part.rotates) {
      kernel::rope_backward<Element>(execution_, rope_, shape_.sequences, shape_.kv_heads,
                                     part.group, dheads, rows);
    } else {
      kernel::merge_heads<Element>(execution_, shape_.sequences, shape_.kv_heads, dheads, rows);
    }
  };
  if (is_plain(part)) {
    const auto drows = kernel::new_matrix<T>("dprojected", num_tokens, width);
    move_back(drows);
    return project_backward<T>(execution_, drows, normed, weights, gradients, part.name, dnormed);
  }
  auto drows = kernel::new_matrix<float>("dprojected", num_tokens, width);
  move_back(drows);
  if (config_.clip_qkv > 0.0) {
    const kernel::Matrix<const float> before =
        part.norm.empty() ? saved.projected : norm_forward(part, weights, saved);
    kernel::clamp_backward(execution_, static_cast<float>(config_.clip_qkv), before, drows);
  }
  if (!part.norm.empty()) norm_backward(part, weights, saved, gradients, drows);
  project_backward<T>(execution_, kernel::as_type<T>(execution_, drows), normed, weights, gradients,
                      part.name, dnormed);
}

/// The rows that one norm sees: the whole projection of a token, or each head of it.
template <class T>
kernel::Matrix<float> GroupedHeads<T>::norm_rows(kernel::Matrix<float> projected) const {
  const std::int64_t width = config_.query_key_norm == QueryKeyNorm::head
                                 ? shape_.head_size
                                 : static_cast<std::int64_t>(projected.extent(1));
  const auto size = static_cast<std::int64_t>(projected.size());
  return kernel::Matrix<float>(projected.data(), width > 0 ? size / width : 0, width);
}

template <class T>
kernel::Matrix<float> GroupedHeads<T>::norm_forward(const Part& part,
                                                    const UnitView<const T>& weights,
                                                    const ProjectionSaved& saved) const {
  const auto normed = kernel::new_matrix<float>("normed heads", saved.projected.extent(0),
                                                saved.projected.extent(1));
  const kernel::Matrix<float> rows = norm_rows(saved.projected);
  kernel::rms_norm_forward<T, float>(execution_, rows, weights.vector(part.norm, rows.extent(1)),
                                     static_cast<float>(config_.rms_norm_epsilon),
                                     norm_rows(normed), saved.rstd);
  return normed;
}

/// dprojected: the gradient after the norm in, before it out.
template <class T>
void GroupedHeads<T>::norm_backward(const Part& part, const UnitView<const T>& weights,
                                    const ProjectionSaved& saved, const UnitView<float>& gradients,
                                    kernel::Matrix<float>& dprojected) const {
  const auto before = kernel::new_zero_matrix<float>(execution_, "dprojected before the norm",
                                                     dprojected.extent(0), dprojected.extent(1));
  const std::int64_t width = norm_rows(before).extent(1);
  kernel::rms_norm_backward<T>(execution_, norm_rows(dprojected), norm_rows(saved.projected),
                               weights.vector(part.norm, width), saved.rstd, norm_rows(before),
                               gradients.vector(part.norm, width));
  dprojected = before;
}

template class GroupedHeads<float>;
template class GroupedHeads<bf16>;

}  // namespace tessera::model
