// SPDX-License-Identifier: Apache-2.0
// Kernels alone, as a step has them.
#include <tessera/study/measure.hpp>

#include "base/block_distribution.hpp"
#include "kernel/allocate.hpp"
#include "kernel/attention.hpp"
#include "tessera/moe/expert.hpp"

namespace tessera::study {
namespace {

template <class T>
KernelTimes time_experts_typed(const comm::Communicator& world, const model::ModelConfig& config,
                               std::int64_t local, std::int64_t num_rows, int num_repeats) {
  const std::int64_t h = config.hidden_size, i = config.intermediate_size;
  const BlockDistribution dealt{num_rows, local};
  std::vector<std::int64_t> offset;
  for (std::int64_t e = 0; e <= local; ++e) offset.push_back(dealt.begin(e));
  const kernel::Execution execution;
  const auto gate_up = kernel::allocate_zeros<kernel::Matrix<T>>("gate_up", local * 2 * i, h);
  const auto down = kernel::allocate_zeros<kernel::Matrix<T>>("down", local * h, i);
  const auto dgate_up = kernel::allocate_zeros<kernel::Matrix<float>>("dgate_up", local * 2 * i, h);
  const auto ddown = kernel::allocate_zeros<kernel::Matrix<float>>("ddown", local * h, i);
  moe::ExpertWeights<T> weights;
  weights.local_experts = local, weights.hidden_size = h, weights.intermediate_size = i;
  weights.gate_up = gate_up.data(), weights.down = down.data();
  weights.activation.kind = config.activation;
  const auto rows = kernel::allocate_zeros<kernel::Matrix<T>>("rows", num_rows, h);
  const auto results = kernel::allocate_zeros<kernel::Matrix<T>>("results", num_rows, h);
  const moe::ExpertGradients gradients{dgate_up.data(), nullptr, ddown.data(), nullptr};
  constexpr auto into = kernel::Into::overwrite_far;  // as the first micro-step of a step
  kernel::ViewPool pool;
  const kernel::PoolScope scope(pool);
  moe::ExpertSaved<T> saved;
  KernelTimes result;
  result.forward = sample_seconds(world, num_repeats, [&] {
    moe::expert_forward<T>(execution, weights, offset, rows, saved, results);
  });
  result.backward = sample_seconds(world, num_repeats, [&] {
    const auto dhidden = moe::expert_backward_rows<T>(execution, weights, offset, saved, rows,
                                                      gradients, into, results);
    moe::expert_backward_gate_up<T>(execution, weights, offset, saved, dhidden, gradients, into);
  });
  return result;
}

template <class T>
KernelTimes time_attention_typed(const comm::Communicator& world, const model::ModelConfig& config,
                                 std::int64_t sequences, std::int64_t length, std::int64_t window,
                                 int num_repeats) {
  const kernel::Execution execution;
  kernel::AttentionShape s;
  s.sequences = sequences, s.length = length, s.window = window;
  s.query_heads = config.num_heads, s.kv_heads = config.num_kv_heads;
  s.head_size = config.head_size, s.value_size = config.value_size;
  s.scale = static_cast<float>(config.attention_scale);
  const std::int64_t tokens = sequences * length;
  const std::int64_t q_size = tokens * s.query_heads * s.head_size;
  const std::int64_t k_size = tokens * s.kv_heads * s.head_size;
  const std::int64_t v_size = tokens * s.kv_heads * s.value_size;
  const std::int64_t out_size = tokens * s.query_heads * s.value_size;
  const auto q = kernel::allocate_zeros<kernel::Vector<T>>("q", q_size);
  const auto k = kernel::allocate_zeros<kernel::Vector<T>>("k", k_size);
  const auto v = kernel::allocate_zeros<kernel::Vector<T>>("v", v_size);
  const auto dout = kernel::allocate_zeros<kernel::Vector<T>>("dout", out_size);
  const auto out = kernel::allocate_zeros<kernel::Vector<float>>("out", out_size);
  const auto lse = kernel::allocate_zeros<kernel::Vector<float>>("lse", tokens * s.query_heads);
  const auto dq = kernel::allocate_zeros<kernel::Vector<float>>("dq", q_size);
  const auto dk = kernel::allocate_zeros<kernel::Vector<float>>("dk", k_size);
  const auto dv = kernel::allocate_zeros<kernel::Vector<float>>("dv", v_size);
  KernelTimes result;
  result.forward = sample_seconds(world, num_repeats, [&] {
    kernel::attention_forward<T>(execution, s, q.data(), k.data(), v.data(), nullptr, out.data(),
                                 lse.data());
  });
  result.backward = sample_seconds(world, num_repeats, [&] {
    kernel::attention_backward<T>(execution, s, q.data(), k.data(), v.data(), nullptr, out.data(),
                                  lse.data(), dout.data(), dq.data(), dk.data(), dv.data(),
                                  nullptr);
  });
  return result;
}

}  // namespace

KernelTimes time_experts(const comm::Communicator& world, const model::ModelConfig& config,
                         Dtype dtype, std::int64_t local_experts, std::int64_t num_rows,
                         int num_repeats) {
  return dtype == Dtype::bf16
             ? time_experts_typed<bf16>(world, config, local_experts, num_rows, num_repeats)
             : time_experts_typed<float>(world, config, local_experts, num_rows, num_repeats);
}

KernelTimes time_attention(const comm::Communicator& world, const model::ModelConfig& config,
                           Dtype dtype, std::int64_t sequences, std::int64_t length,
                           std::int64_t window, int num_repeats) {
  return dtype == Dtype::bf16
             ? time_attention_typed<bf16>(world, config, sequences, length, window, num_repeats)
             : time_attention_typed<float>(world, config, sequences, length, window, num_repeats);
}

}  // namespace tessera::study
