// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/moe_block.hpp>

#include "base/phase_timer.hpp"
#include "kernel/rms_norm.hpp"
#include "kernel/rows.hpp"

namespace tessera::model {
namespace {

constexpr const char* norm_name = "post_attention_layernorm.weight";

template <class T>
kernel::Vector<T> flat(const kernel::Matrix<T>& matrix) {
  return kernel::Vector<T>(matrix.data(), matrix.size());
}

/// The router with its parameters in f32: its products and softmax are f32 in every mode.
template <class T>
moe::Router wide_router(const kernel::Execution& execution, const ModelConfig& config,
                        const UnitView<const T>& dense,
                        kernel::Vector<const float> correction_bias) {
  const std::string& name = config.router.name;
  const auto weight =
      kernel::new_matrix<float>("router weight f32", config.num_experts, config.hidden_size);
  kernel::convert<T, float>(execution, dense.vector(name + ".weight", weight.size()), flat(weight));
  const auto stored_bias = dense.vector(name + ".bias", config.num_experts);
  const auto bias = kernel::new_vector<float>("router bias f32", stored_bias.extent(0));
  if (bias.extent(0) > 0) kernel::convert<T, float>(execution, stored_bias, bias);
  return {weight, bias, correction_bias, config.router.options};
}

/// norm(x) in f32, and as T in `rounded` unless that is empty; computed again in backward rather
/// than kept.
template <class T>
kernel::Matrix<float> normalize(const kernel::Execution& execution, const ModelConfig& config,
                                const UnitView<const T>& dense, kernel::Matrix<const float> x,
                                kernel::Matrix<T> rounded, kernel::Vector<float> rstd) {
  const auto normed = kernel::new_matrix<float>("moe normed", x.extent(0), x.extent(1));
  kernel::rms_norm_forward<T>(execution, x, dense.vector(norm_name, config.hidden_size),
                              static_cast<float>(config.rms_norm_epsilon), normed, rounded, rstd);
  return normed;
}

}  // namespace

template <class T>
moe::ExpertWeights<T> MoeBlock<T>::expert_weights(const UnitView<const T>& experts) const {
  const BlockDistribution blocks{config_.num_experts, exchange_.axis().size()};
  moe::ExpertWeights<T> weights;
  weights.local_experts = blocks.count(exchange_.axis().rank());
  weights.hidden_size = config_.hidden_size;
  weights.intermediate_size = config_.intermediate_size;
  weights.gate_up = experts.get("gate_up_proj");
  weights.gate_up_bias = experts.find("gate_up_proj_bias");
  weights.down = experts.get("down_proj");
  weights.down_bias = experts.find("down_proj_bias");
  weights.activation = {config_.activation, static_cast<float>(config_.swiglu_alpha),
                        static_cast<float>(config_.swiglu_limit)};
  return weights;
}

template <class T>
kernel::Matrix<float> MoeBlock<T>::forward(const UnitView<const T>& dense,
                                           const UnitView<const T>& experts,
                                           kernel::Vector<const float> correction_bias,
                                           kernel::Matrix<float> x, moe::LoadBalance* balance,
                                           MoeSaved<T>& saved) const {
  TimedPhase timed(StepPhase::route_forward);
  saved.x = x;
  saved.rstd = kernel::new_vector<float>("moe rstd", x.extent(0));
  const auto tokens = exchange_.tokens<T>(x.extent(0), x.extent(1));
  const auto normed = normalize<T>(execution_, config_, dense, x, tokens, saved.rstd);
  saved.routing = moe::route_forward(
      execution_, wide_router<T>(execution_, config_, dense, correction_bias), normed);
  if (balance != nullptr) balance->add(execution_, saved.routing);

  timed.next(StepPhase::dispatch_forward);
  saved.handle = moe::plan_dispatch(exchange_, config_.num_experts, saved.routing.index);
  const auto rows = moe::dispatch_forward<T>(exchange_, saved.handle, tokens);
  timed.next(StepPhase::expert_forward);
  const auto outputs = exchange_.results<T>(saved.handle, x.extent(1));
  moe::expert_forward<T>(execution_, expert_weights(experts), saved.handle.expert_offset, rows,
                         saved.expert, outputs);
  timed.next(StepPhase::combine_forward);
  auto returning = moe::start_combine_forward<T>(exchange_, saved.handle, outputs);
  const auto y = kernel::new_matrix<float>("layer output", x.extent(0), x.extent(1));
  if (has_shared_experts()) {
    const TimedPhase inner(StepPhase::dense_mlp_forward);
    Kokkos::deep_copy(execution_, y, x);
    shared_.forward(dense, tokens, saved.shared, y);
  }
  saved.outputs =
      moe::finish_combine_forward<T>(exchange_, saved.handle, std::move(returning),
                                     saved.routing.weight, has_shared_experts() ? y : x, y);
  return y;
}

template <class T>
void MoeBlock<T>::backward(const UnitView<const T>& dense, const UnitView<const T>& experts,
                           kernel::Vector<const float> correction_bias, const MoeSaved<T>& saved,
                           kernel::Vector<const float> aux_gradient,
                           const UnitView<float>& dense_gradients,
                           const UnitView<float>& expert_gradients, kernel::Into into,
                           kernel::Matrix<float> dx) const {
  TimedPhase timed(StepPhase::combine_backward);
  const auto dweight =
      kernel::new_matrix<float>("routing dweight", dx.extent(0), config_.router.options.top_k);
  auto arriving = moe::start_combine_backward<T>(exchange_, saved.handle, saved.outputs,
                                                 saved.routing.weight, dx, dweight);
  const auto dnormed =
      dense_backward(dense, correction_bias, saved, dweight, aux_gradient, dense_gradients, dx);
  const auto doutputs =
      moe::finish_combine_backward<T>(exchange_, saved.handle, std::move(arriving));
  timed.next(StepPhase::expert_backward);
  const moe::ExpertWeights<T> weights = expert_weights(experts);
  const moe::ExpertGradients gradients{
      expert_gradients.get("gate_up_proj"), expert_gradients.find("gate_up_proj_bias"),
      expert_gradients.get("down_proj"), expert_gradients.find("down_proj_bias")};
  const std::span<const std::int64_t> offset(saved.handle.expert_offset);
  const auto drows = exchange_.results<T>(saved.handle, config_.hidden_size);
  const auto dhidden = moe::expert_backward_rows<T>(execution_, weights, offset, saved.expert,
                                                    doutputs, gradients, into, drows);
  timed.next(StepPhase::dispatch_backward);
  auto returning = moe::start_dispatch_backward<T>(exchange_, saved.handle, drows);
  timed.next(StepPhase::expert_backward);
  moe::expert_backward_gate_up<T>(execution_, weights, offset, saved.expert, dhidden, gradients,
                                  into);
  timed.next(StepPhase::dispatch_backward);
  moe::finish_dispatch_backward<T>(exchange_, saved.handle, std::move(returning), dnormed);
  timed.next(StepPhase::route_backward);
  kernel::rms_norm_backward<T>(execution_, dnormed, saved.x,
                               dense.vector(norm_name, config_.hidden_size), saved.rstd, dx,
                               dense_gradients.vector(norm_name, config_.hidden_size));
}

/// Backward of what needs no expert, so that it is done while their rows are under way: the router
/// and the shared experts. Returns their part of the gradient of norm(x).
template <class T>
kernel::Matrix<float> MoeBlock<T>::dense_backward(const UnitView<const T>& dense,
                                                  kernel::Vector<const float> correction_bias,
                                                  const MoeSaved<T>& saved,
                                                  kernel::Matrix<const float> dweight,
                                                  kernel::Vector<const float> aux_gradient,
                                                  const UnitView<float>& dense_gradients,
                                                  const kernel::Matrix<float>& dy) const {
  TimedPhase timed(StepPhase::route_backward);
  const std::int64_t hidden = config_.hidden_size, num_experts = config_.num_experts;
  const auto tokens =
      kernel::new_matrix<T>("moe normed, rounded", has_shared_experts() ? dy.extent(0) : 0, hidden);
  const auto normed = normalize<T>(execution_, config_, dense, saved.x, tokens, saved.rstd);
  const auto dnormed = kernel::new_matrix<float>("moe dnormed", dy.extent(0), hidden);
  const std::string& router = config_.router.name;
  moe::route_backward(execution_, wide_router<T>(execution_, config_, dense, correction_bias),
                      saved.routing, normed, dweight, aux_gradient, dnormed,
                      dense_gradients.matrix(router + ".weight", num_experts, hidden),
                      dense_gradients.vector(router + ".bias", num_experts));
  if (has_shared_experts()) {
    timed.next(StepPhase::dense_mlp_backward);
    shared_.backward(dense, saved.shared, tokens, kernel::as_type<T>(execution_, dy),
                     dense_gradients, dnormed);
  }
  return dnormed;
}

template class MoeBlock<float>;
template class MoeBlock<bf16>;

}  // namespace tessera::model
