// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <tessera/model/attention_block.hpp>

#include "kernel/gemm.hpp"
#include "kernel/rms_norm.hpp"
#include "kernel/rows.hpp"

namespace tessera::model {
namespace {

using kernel::Into;
using kernel::operand;

}  // namespace

template <class T>
AttentionBlock<T>::AttentionBlock(const ModelConfig& config, const kernel::RopeTable& rope,
                                  std::int64_t layer, std::int64_t sequences, std::int64_t length)
    : config_(config), rope_(rope) {
  shape_.sequences = sequences;
  shape_.length = length;
  shape_.query_heads = config.num_heads;
  shape_.kv_heads = config.num_kv_heads;
  shape_.head_size = config.head_size;
  shape_.value_size = config.head_size;
  shape_.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_size)));
  shape_.window = config.layer_window[layer];
}

template <class T>
kernel::Matrix<float> AttentionBlock<T>::project(kernel::Matrix<const T> x,
                                                 const UnitView<const T>& weights,
                                                 const char* weight, std::int64_t width) const {
  const auto projected = kernel::new_matrix<float>("projected", x.extent(0), width);
  kernel::gemm<T, float>(execution_, operand(x),
                         operand(weights.matrix(weight, width, config_.hidden_size)).t(),
                         operand(projected));
  return projected;
}

template <class T>
kernel::Vector<const float> AttentionBlock<T>::sinks(const UnitView<const T>& weights) const {
  const auto sinks = kernel::new_vector<float>("sinks", config_.num_heads);
  kernel::convert<T, float>(execution_, weights.vector("self_attn.sinks", config_.num_heads),
                            sinks);
  return sinks;
}

template <class T>
kernel::Matrix<float> AttentionBlock<T>::forward(const UnitView<const T>& weights,
                                                 kernel::Matrix<float> x,
                                                 AttentionSaved<T>& saved) const {
  const std::int64_t num_tokens = x.extent(0), hidden = config_.hidden_size;
  const std::int64_t q_width = shape_.query_heads * shape_.head_size;
  const std::int64_t kv_width = shape_.kv_heads * shape_.head_size;
  saved = {x,
           kernel::new_vector<float>("attention rstd", num_tokens),
           kernel::new_matrix<T>("attention normed", num_tokens, hidden),
           kernel::new_vector<T>("q", num_tokens * q_width),
           kernel::new_vector<T>("k", num_tokens * kv_width),
           kernel::new_vector<T>("v", num_tokens * kv_width),
           kernel::new_matrix<float>("attention out", num_tokens, q_width),
           kernel::new_vector<float>("attention lse", num_tokens * shape_.query_heads)};
  kernel::rms_norm_forward<T, T>(execution_, x, weights.vector("input_layernorm.weight", hidden),
                                 static_cast<float>(config_.rms_norm_epsilon), saved.normed,
                                 saved.rstd);

  kernel::rope_forward<T>(execution_, rope_, shape_.sequences, shape_.kv_heads, shape_.group(),
                          project(saved.normed, weights, "q_proj.weight", q_width),
                          weights.vector("q_proj.bias", q_width), saved.q.data());
  kernel::rope_forward<T>(execution_, rope_, shape_.sequences, shape_.kv_heads, 1,
                          project(saved.normed, weights, "k_proj.weight", kv_width),
                          weights.vector("k_proj.bias", kv_width), saved.k.data());
  kernel::split_heads<T>(execution_, shape_.sequences, shape_.kv_heads,
                         project(saved.normed, weights, "v_proj.weight", kv_width),
                         weights.vector("v_proj.bias", kv_width), saved.v.data());
  kernel::attention_forward<T>(execution_, shape_, saved.q.data(), saved.k.data(), saved.v.data(),
                               sinks(weights).data(), saved.out.data(), saved.lse.data());

  const auto y = kernel::new_matrix<float>("attention residual", num_tokens, hidden);
  Kokkos::deep_copy(execution_, y, x);
  const kernel::Matrix<const T> out = kernel::as_type<T>(execution_, saved.out);
  kernel::gemm<T, float>(execution_, operand(out),
                         operand(weights.matrix("o_proj.weight", hidden, q_width)).t(), operand(y),
                         Into::accumulate);
  kernel::add_bias<T>(execution_, weights.vector("o_proj.bias", hidden), y);
  return y;
}

template <class T>
void AttentionBlock<T>::project_backward(kernel::Matrix<const T> dprojected,
                                         kernel::Matrix<const T> normed,
                                         const UnitView<const T>& weights,
                                         const UnitView<float>& gradients, const std::string& name,
                                         kernel::Matrix<float> dnormed) const {
  const std::int64_t width = dprojected.extent(1), hidden = config_.hidden_size;
  kernel::gemm<T, float>(execution_, operand(dprojected).t(), operand(normed),
                         operand(gradients.matrix(name + ".weight", width, hidden)),
                         Into::accumulate);
  kernel::add_column_sums<T>(execution_, dprojected, gradients.vector(name + ".bias", width));
  kernel::gemm<T, float>(execution_, operand(dprojected),
                         operand(weights.matrix(name + ".weight", width, hidden)), operand(dnormed),
                         Into::accumulate);
}

template <class T>
void AttentionBlock<T>::backward(const UnitView<const T>& weights, const AttentionSaved<T>& saved,
                                 const UnitView<float>& gradients, kernel::Matrix<float> dx) const {
  const std::int64_t num_tokens = dx.extent(0), hidden = config_.hidden_size;
  const std::int64_t q_width = shape_.query_heads * shape_.head_size;
  const std::int64_t kv_width = shape_.kv_heads * shape_.head_size;

  // Output projection: dy is the residual stream's gradient, as an operand of products.
  const kernel::Matrix<const T> dy = kernel::as_type<T>(execution_, dx),
                                out = kernel::as_type<T>(execution_, saved.out);
  const auto dout = kernel::new_matrix<T>("attention dout", num_tokens, q_width);
  kernel::gemm<T, T>(execution_, operand(dy),
                     operand(weights.matrix("o_proj.weight", hidden, q_width)), operand(dout));
  kernel::gemm<T, float>(execution_, operand(dy).t(), operand(out),
                         operand(gradients.matrix("o_proj.weight", hidden, q_width)),
                         Into::accumulate);
  kernel::add_column_sums<float>(execution_, dx, gradients.vector("o_proj.bias", hidden));

  const auto dq = kernel::new_vector<float>("dq", num_tokens * q_width);
  const auto dk = kernel::new_vector<float>("dk", num_tokens * kv_width);
  const auto dv = kernel::new_vector<float>("dv", num_tokens * kv_width);
  kernel::attention_backward<T>(execution_, shape_, saved.q.data(), saved.k.data(), saved.v.data(),
                                sinks(weights).data(), saved.out.data(), saved.lse.data(),
                                dout.data(), dq.data(), dk.data(), dv.data(),
                                gradients.get("self_attn.sinks"));

  const auto dq_rows = kernel::new_matrix<T>("dq rows", num_tokens, q_width);
  const auto dk_rows = kernel::new_matrix<T>("dk rows", num_tokens, kv_width);
  const auto dv_rows = kernel::new_matrix<T>("dv rows", num_tokens, kv_width);
  kernel::rope_backward<T>(execution_, rope_, shape_.sequences, shape_.kv_heads, shape_.group(),
                           dq.data(), dq_rows);
  kernel::rope_backward<T>(execution_, rope_, shape_.sequences, shape_.kv_heads, 1, dk.data(),
                           dk_rows);
  kernel::merge_heads<T>(execution_, shape_.sequences, shape_.kv_heads, dv.data(), dv_rows);

  const kernel::Matrix<float> dnormed("attention dnormed", num_tokens, hidden);
  project_backward(dq_rows, saved.normed, weights, gradients, "self_attn.q_proj", dnormed);
  project_backward(dk_rows, saved.normed, weights, gradients, "self_attn.k_proj", dnormed);
  project_backward(dv_rows, saved.normed, weights, gradients, "self_attn.v_proj", dnormed);
  kernel::rms_norm_backward<T>(execution_, dnormed, saved.x,
                               weights.vector("input_layernorm.weight", hidden), saved.rstd, dx,
                               gradients.vector("input_layernorm.weight", hidden));
}

template class AttentionBlock<float>;
template class AttentionBlock<bf16>;

}  // namespace tessera::model
