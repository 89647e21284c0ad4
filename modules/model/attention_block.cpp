// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/attention_block.hpp>

#include "kernel/gemm.hpp"
#include "kernel/rms_norm.hpp"
#include "kernel/rows.hpp"
#include "tessera/model/projection.hpp"

namespace tessera::model {

using kernel::Into;
using kernel::operand;

template <class T>
AttentionBlock<T>::AttentionBlock(const ModelConfig& config, const kernel::RopeTable& rope,
                                  std::int64_t layer, std::int64_t sequences, std::int64_t length)
    : config_(config), rope_(rope) {
  shape_.sequences = sequences;
  shape_.length = length;
  shape_.query_heads = config.num_heads;
  shape_.kv_heads = config.num_kv_heads;
  shape_.head_size = config.head_size;
  shape_.value_size = config.value_size;
  shape_.scale = static_cast<float>(config.attention_scale);
  shape_.window = config.layer_window[static_cast<std::size_t>(layer)];
}

template <class T>
kernel::Vector<float> AttentionBlock<T>::sinks(const UnitView<const T>& weights) const {
  const auto stored = weights.vector("self_attn.sinks", config_.num_heads);
  if (stored.extent(0) == 0) return {};  // null, which an allocation of nothing need not be
  const auto sinks = kernel::new_vector<float>("sinks", stored.extent(0));
  kernel::convert<T, float>(execution_, stored, sinks);
  return sinks;
}

template <class T>
AttentionSaved<T> AttentionBlock<T>::new_saved(kernel::Matrix<float> x) const {
  const std::int64_t num_tokens = x.extent(0);
  const std::int64_t kv_tokens = num_tokens * shape_.kv_heads;
  return {x,
          kernel::new_vector<float>("attention rstd", num_tokens),
          kernel::new_matrix<T>("attention normed", num_tokens, x.extent(1)),
          kernel::new_vector<T>("q", num_tokens * shape_.query_heads * shape_.head_size),
          kernel::new_vector<T>("k", kv_tokens * shape_.head_size),
          kernel::new_vector<T>("v", kv_tokens * shape_.value_size),
          {},
          {},
          kernel::new_matrix<float>("attention out", num_tokens, out_width()),
          kernel::new_vector<float>("attention lse", num_tokens * shape_.query_heads)};
}

template <class T>
void AttentionBlock<T>::attend(const UnitView<const T>& weights, kernel::Matrix<float> x,
                               AttentionSaved<T>& saved) const {
  saved = new_saved(x);
  kernel::rms_norm_forward<T, T>(
      execution_, x, weights.vector("input_layernorm.weight", config_.hidden_size),
      static_cast<float>(config_.rms_norm_epsilon), saved.normed, saved.rstd);
  if (config_.is_latent()) {
    LatentHeads<T>(config_, rope_, shape_)
        .forward(weights, saved.normed, saved.q.data(), saved.k.data(), saved.v.data(),
                 saved.latent);
  } else {
    GroupedHeads<T>(config_, rope_, shape_)
        .forward(weights, saved.normed, saved.q.data(), saved.k.data(), saved.v.data(),
                 saved.grouped);
  }
  kernel::attention_forward<T>(execution_, shape_, saved.q.data(), saved.k.data(), saved.v.data(),
                               sinks(weights).data(), saved.out.data(), saved.lse.data());
}

template <class T>
kernel::Matrix<float> AttentionBlock<T>::forward(const UnitView<const T>& weights,
                                                 kernel::Matrix<float> x,
                                                 AttentionSaved<T>& saved) const {
  attend(weights, x, saved);
  const std::int64_t hidden = config_.hidden_size;
  const auto y = kernel::new_matrix<float>("attention residual", x.extent(0), hidden);
  Kokkos::deep_copy(execution_, y, x);
  const kernel::Matrix<const T> out = kernel::as_type<T>(execution_, saved.out);
  kernel::gemm<T, float>(execution_, operand(out),
                         operand(weights.matrix("o_proj.weight", hidden, out_width())).t(),
                         operand(y), Into::accumulate);
  const auto bias = weights.vector("o_proj.bias", hidden);
  if (bias.extent(0) > 0) kernel::add_bias<T>(execution_, bias, y);
  return y;
}

/// dx: the residual stream's gradient -> gradient of attention's output [T, Hq * Dv].
template <class T>
kernel::Matrix<T> AttentionBlock<T>::output_backward(const UnitView<const T>& weights,
                                                     const AttentionSaved<T>& saved,
                                                     const UnitView<float>& gradients,
                                                     kernel::Matrix<float> dx) const {
  const std::int64_t hidden = config_.hidden_size;
  const kernel::Matrix<const T> dy = kernel::as_type<T>(execution_, dx),
                                out = kernel::as_type<T>(execution_, saved.out);
  const auto dout = kernel::new_matrix<T>("attention dout", dx.extent(0), out_width());
  kernel::gemm<T, T>(execution_, operand(dy),
                     operand(weights.matrix("o_proj.weight", hidden, out_width())), operand(dout));
  kernel::gemm<T, float>(execution_, operand(dy).t(), operand(out),
                         operand(gradients.matrix("o_proj.weight", hidden, out_width())),
                         Into::accumulate);
  const auto dbias = gradients.vector("o_proj.bias", hidden);
  if (dbias.extent(0) > 0) kernel::add_column_sums<float>(execution_, dx, dbias);
  return dout;
}

template <class T>
void AttentionBlock<T>::backward(const UnitView<const T>& weights, const AttentionSaved<T>& saved,
                                 const UnitView<float>& gradients, kernel::Matrix<float> dx) const {
  const std::int64_t hidden = config_.hidden_size;
  const auto dout = output_backward(weights, saved, gradients, dx);
  const auto dq = kernel::new_vector<float>("dq", saved.q.extent(0));
  const auto dk = kernel::new_vector<float>("dk", saved.k.extent(0));
  const auto dv = kernel::new_vector<float>("dv", saved.v.extent(0));
  const auto dsinks = gradients.vector("self_attn.sinks", config_.num_heads);
  kernel::attention_backward<T>(execution_, shape_, saved.q.data(), saved.k.data(), saved.v.data(),
                                sinks(weights).data(), saved.out.data(), saved.lse.data(),
                                dout.data(), dq.data(), dk.data(), dv.data(), dsinks.data());

  const auto dnormed =
      kernel::new_zero_matrix<float>(execution_, "attention dnormed", dx.extent(0), hidden);
  if (config_.is_latent()) {
    LatentHeads<T>(config_, rope_, shape_)
        .backward(weights, saved.latent, saved.normed, dq.data(), dk.data(), dv.data(), gradients,
                  dnormed);
  } else {
    GroupedHeads<T>(config_, rope_, shape_)
        .backward(weights, saved.grouped, saved.normed, dq.data(), dk.data(), dv.data(), gradients,
                  dnormed);
  }
  kernel::rms_norm_backward<T>(execution_, dnormed, saved.x,
                               weights.vector("input_layernorm.weight", hidden), saved.rstd, dx,
                               gradients.vector("input_layernorm.weight", hidden));
}

template class AttentionBlock<float>;
template class AttentionBlock<bf16>;

}  // namespace tessera::model
