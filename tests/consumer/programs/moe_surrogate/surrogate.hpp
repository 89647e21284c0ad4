// SPDX-License-Identifier: Apache-2.0
// A mixture of experts that learns one number per token. Tokens are the caller's rows; experts live
// on all ranks, parameters are sharded and stepped by ZeRO-3.
#pragma once

#include <Kokkos_Core.hpp>
#include <tessera/comm/process_grid.hpp>
#include <tessera/moe/dispatch.hpp>
#include <tessera/moe/expert.hpp>
#include <tessera/moe/load_balance.hpp>
#include <tessera/moe/route.hpp>
#include <tessera/zero3/parameter_store.hpp>

/// Arrays of the host code, as it has made them.
using Rows32 = Kokkos::View<float**, Kokkos::LayoutRight>;
using Values32 = Kokkos::View<float*>;

class Surrogate {
 public:
  static constexpr int num_inputs = 16, intermediate = 32, num_experts = 6;

  /// collective over grid.world().
  explicit Surrogate(const tessera::comm::ProcessGrid& grid);

  /// The prediction of each row [T] for features [T, num_inputs]. collective.
  Values32 predict(const Rows32& features);
  /// One step of AdamW on the mean squared error against `target` [T] over the tokens of all ranks,
  /// of which there are num_tokens; returns that error before the step. collective.
  double learn(const Rows32& features, const Values32& target, double num_tokens,
               double learning_rate);
  /// The best expert of each row of the last call [T].
  Kokkos::View<int*> first_choice() const;

 private:
  struct Pass {
    tessera::moe::Routing routing;
    tessera::moe::DispatchHandle handle;
    tessera::moe::ExpertSaved<float> expert;
    tessera::kernel::Matrix<const float> outputs;
    tessera::kernel::Matrix<float> result;  ///< [T, num_inputs]; the prediction is column 0
  };
  tessera::moe::Router router(const float* unit) const;
  tessera::moe::ExpertWeights<float> weights(const float* unit) const;
  Pass forward(const Rows32& features);
  void backward(const Rows32& features, const Pass& pass, tessera::kernel::Matrix<float> dresult);
  void set_initial_values();

  const tessera::comm::ProcessGrid& grid_;
  tessera::kernel::Execution execution_;
  tessera::zero3::ParameterStore<float> store_;
  tessera::moe::TokenExchange exchange_;
  tessera::moe::Routing last_routing_;
  std::int64_t num_steps_ = 0;
};
