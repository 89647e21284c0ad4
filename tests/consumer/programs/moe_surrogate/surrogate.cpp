// SPDX-License-Identifier: Apache-2.0
#include "surrogate.hpp"

#include <cmath>
#include <tessera/zero3/grad_norm.hpp>
#include <tessera/zero3/optimizer.hpp>

using namespace tessera;

namespace {

constexpr int H = Surrogate::num_inputs, I = Surrogate::intermediate, E = Surrogate::num_experts;
constexpr std::size_t router_unit = 0, expert_unit = 1;
enum RouterPart { router_weight, router_bias };
enum ExpertPart { gate_up, gate_up_bias, down, down_bias };

Parameter parameter(const char* name, Shape shape, bool is_expert) {
  Parameter made{.name = name, .shape = std::move(shape)};
  made.is_expert = is_expert;
  made.weight_decay = false;
  return made;
}

std::vector<zero3::UnitSpec> units(const comm::ProcessGrid& grid) {
  return {{"router",
           {parameter("router.weight", {E, H}, false), parameter("router.bias", {E}, false)},
           zero3::Placement::dense(grid)},
          {"experts",
           {parameter("gate_up", {E, 2 * I, H}, true), parameter("gate_up.bias", {E, 2 * I}, true),
            parameter("down", {E, H, I}, true), parameter("down.bias", {E, H}, true)},
           zero3::Placement::expert(grid, E)}};
}

/// In [-1, 1), the same for an element on whichever rank it lies.
float noise(std::int64_t element, std::size_t parameter_idx) {
  std::uint64_t x = 0x9e3779b97f4a7c15u * static_cast<std::uint64_t>(element + 1) + parameter_idx;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>((x >> 11) * 0x1p-52 - 1.0);
}

}  // namespace

Surrogate::Surrogate(const comm::ProcessGrid& grid)
    : grid_(grid), store_(units(grid)), exchange_(grid.expert()) {
  set_initial_values();
}

void Surrogate::set_initial_values() {
  store_.open_masters();
  for (std::size_t u = 0; u < store_.num_units(); ++u) {
    const zero3::Unit& unit = store_.unit(u);
    const auto host = kernel::host_mirror(unit.master());
    for (const Slice& slice : unit.slices()) {
      const auto part = static_cast<std::size_t>(slice.parameter - unit.parameters().data());
      const bool is_bias = slice.parameter->name.ends_with("bias");
      const float scale = is_bias ? 0.0f : 1.0f / std::sqrt(float(slice.parameter->shape.back()));
      for (std::int64_t k = 0; k < slice.size(); ++k)
        host(slice.shard_offset + k) = scale * noise(slice.begin + k, 4 * u + part);
    }
    Kokkos::deep_copy(unit.master(), host);
  }
}

moe::Router Surrogate::router(const float* unit) const {
  const zero3::FlatLayout& layout = store_.unit(router_unit).layout();
  moe::Router made;
  made.weight = kernel::Matrix<const float>(unit + layout.offset(router_weight), E, H);
  made.bias = kernel::Vector<const float>(unit + layout.offset(router_bias), E);
  made.options.score = moe::RouterScore::softmax;
  made.options.top_k = 2;
  return made;
}

moe::ExpertWeights<float> Surrogate::weights(const float* unit) const {
  const zero3::FlatLayout& layout = store_.unit(expert_unit).layout();
  moe::ExpertWeights<float> made;
  made.local_experts = store_.unit(expert_unit).placement().experts().count();
  made.hidden_size = H;
  made.intermediate_size = I;
  made.gate_up = unit + layout.offset(gate_up);
  made.gate_up_bias = unit + layout.offset(gate_up_bias);
  made.down = unit + layout.offset(down);
  made.down_bias = unit + layout.offset(down_bias);
  made.activation.kind = kernel::Activation::swiglu;
  return made;
}

// route -> dispatch -> expert -> combine. `features` goes in as the host code has it.
Surrogate::Pass Surrogate::forward(const Rows32& features) {
  Pass pass;
  const auto num_tokens = static_cast<std::int64_t>(features.extent(0));
  pass.routing = moe::route_forward(execution_, router(store_.gather(router_unit)), features);
  pass.handle = moe::plan_dispatch(exchange_, E, pass.routing.index);
  const auto rows = moe::dispatch_forward<float>(exchange_, pass.handle, features);
  const auto outputs = exchange_.results<float>(pass.handle, H);
  moe::expert_forward<float>(execution_, weights(store_.gather(expert_unit)),
                             pass.handle.expert_offset, rows, pass.expert, outputs);
  auto returning = moe::start_combine_forward<float>(exchange_, pass.handle, outputs);
  pass.result = kernel::new_zero_matrix<float>(execution_, "result", num_tokens, H);
  pass.outputs = moe::finish_combine_forward<float>(exchange_, pass.handle, std::move(returning),
                                                    pass.routing.weight, pass.result, pass.result);
  last_routing_ = pass.routing;
  return pass;
}

// The same in reverse; gradients are summed over the ranks that share a parameter.
void Surrogate::backward(const Rows32& features, const Pass& pass, kernel::Matrix<float> dresult) {
  const auto num_tokens = static_cast<std::int64_t>(features.extent(0));
  const auto dweight = kernel::new_matrix<float>("dweight", num_tokens, 2);
  auto arriving = moe::start_combine_backward<float>(exchange_, pass.handle, pass.outputs,
                                                     pass.routing.weight, dresult, dweight);
  moe::LoadBalance balance(E);
  balance.add(execution_, pass.routing);
  balance.finish(grid_.world());
  const auto dfeatures = kernel::new_matrix<float>("dfeatures", num_tokens, H);
  const zero3::FlatLayout& dense = store_.unit(router_unit).layout();
  float* const router_gradient = store_.gradient(router_unit);
  moe::route_backward(execution_, router(store_.gather(router_unit)), pass.routing, features,
                      dweight, balance.gradient(1e-3), dfeatures,
                      kernel::Matrix<float>(router_gradient + dense.offset(router_weight), E, H),
                      kernel::Vector<float>(router_gradient + dense.offset(router_bias), E));
  store_.reduce(router_unit);

  const auto doutputs =
      moe::finish_combine_backward<float>(exchange_, pass.handle, std::move(arriving));
  const zero3::FlatLayout& layout = store_.unit(expert_unit).layout();
  float* const unit = store_.gradient(expert_unit);
  const moe::ExpertGradients gradients{unit + layout.offset(gate_up),
                                       unit + layout.offset(gate_up_bias),
                                       unit + layout.offset(down), unit + layout.offset(down_bias)};
  const moe::ExpertWeights<float> experts = weights(store_.gather(expert_unit));
  const auto drows = exchange_.results<float>(pass.handle, H);
  const auto dhidden =
      moe::expert_backward_rows<float>(execution_, experts, pass.handle.expert_offset, pass.expert,
                                       doutputs, gradients, kernel::Into::accumulate, drows);
  auto returning = moe::start_dispatch_backward<float>(exchange_, pass.handle, drows);
  moe::expert_backward_gate_up<float>(execution_, experts, pass.handle.expert_offset, pass.expert,
                                      dhidden, gradients, kernel::Into::accumulate);
  store_.reduce(expert_unit);
  moe::finish_dispatch_backward<float>(exchange_, pass.handle, std::move(returning), dfeatures);
}

Values32 Surrogate::predict(const Rows32& features) {
  const Pass pass = forward(features);
  for (std::size_t u = 0; u < store_.num_units(); ++u) store_.release(u);
  const Values32 values("prediction", features.extent(0));
  const auto result = pass.result;
  Kokkos::parallel_for(
      "prediction", features.extent(0), KOKKOS_LAMBDA(int t) { values(t) = result(t, 0); });
  return values;
}

double Surrogate::learn(const Rows32& features, const Values32& target, double num_tokens,
                        double learning_rate) {
  store_.zero_gradients();
  const Pass pass = forward(features);
  const auto num_own = static_cast<std::int64_t>(features.extent(0));
  const auto dresult = kernel::new_zero_matrix<float>(execution_, "dresult", num_own, H);
  const auto result = pass.result;
  const auto scale = static_cast<float>(1.0 / num_tokens);
  double error = 0.0;
  Kokkos::parallel_reduce(
      "squared error", num_own,
      KOKKOS_LAMBDA(int t, double& sum) {
        const float d = result(t, 0) - target(t);
        dresult(t, 0) = 2.0f * d * scale;
        sum += d * d * scale;
      },
      error);
  backward(features, pass, dresult);
  for (std::size_t u = 0; u < store_.num_units(); ++u) store_.release(u);
  store_.finish_reductions();
  const zero3::GradNorm norm = zero3::global_grad_norm(grid_.world(), store_, false);
  zero3::optimizer_step(store_, {.beta2 = 0.99}, learning_rate, ++num_steps_,
                        zero3::clip_factor(norm.norm, 1.0));
  return grid_.world().all_reduce_value("squared error", error, comm::ReduceOp::sum);
}

Kokkos::View<int*> Surrogate::first_choice() const {
  const auto index = last_routing_.index;
  const Kokkos::View<int*> first("first choice", index.extent(0));
  Kokkos::parallel_for(
      "first choice", index.extent(0), KOKKOS_LAMBDA(int t) { first(t) = index(t, 0); });
  return first;
}
