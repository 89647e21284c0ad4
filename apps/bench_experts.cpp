// SPDX-License-Identifier: Apache-2.0
// The experts' MLPs alone: as a step has them, and with a given number of rows each.
#include "base/block_distribution.hpp"
#include "bench.hpp"
#include "tessera/moe/expert.hpp"

namespace tessera::apps {
namespace {

template <class T>
ExpertSeconds time_typed(const comm::Communicator& world, const BenchShape& shape,
                         std::int64_t local, std::int64_t num_rows) {
  const std::int64_t h = shape.config.hidden_size, i = shape.config.intermediate_size;
  const BlockDistribution dealt{num_rows, local};
  std::vector<std::int64_t> offset;
  for (std::int64_t e = 0; e <= local; ++e) offset.push_back(dealt.begin(e));
  const kernel::Execution execution;
  const kernel::Matrix<T> gate_up("gate_up", local * 2 * i, h), down("down", local * h, i);
  const kernel::Matrix<float> dgate_up("dgate_up", local * 2 * i, h), ddown("ddown", local * h, i);
  moe::ExpertWeights<T> weights;
  weights.local_experts = local, weights.hidden_size = h, weights.intermediate_size = i;
  weights.gate_up = gate_up.data(), weights.down = down.data();
  weights.activation.kind = shape.config.activation;
  const kernel::Matrix<T> rows("rows", num_rows, h), results("results", num_rows, h);
  const moe::ExpertGradients gradients{dgate_up.data(), nullptr, ddown.data(), nullptr};
  constexpr auto into = kernel::Into::overwrite_far;  // as the first micro-step of a step
  kernel::ViewPool pool;
  const kernel::PoolScope scope(pool);
  moe::ExpertSaved<T> saved;
  ExpertSeconds result;
  result.forward = median_seconds(world, shape.num_repeats, [&] {
    moe::expert_forward<T>(execution, weights, offset, rows, saved, results);
  });
  result.backward = median_seconds(world, shape.num_repeats, [&] {
    const auto dhidden = moe::expert_backward_rows<T>(execution, weights, offset, saved, rows,
                                                      gradients, into, results);
    moe::expert_backward_gate_up<T>(execution, weights, offset, saved, dhidden, gradients, into);
  });
  return result;
}

Work sum(const Work& a, const Work& b) {
  return {a.flops + b.flops, a.memory_bytes + b.memory_bytes, a.message_bytes + b.message_bytes};
}

}  // namespace

ExpertSeconds time_experts(const comm::Communicator& world, const BenchShape& shape,
                           std::int64_t local_experts, std::int64_t num_rows) {
  return shape.dtype == Dtype::bf16 ? time_typed<bf16>(world, shape, local_experts, num_rows)
                                    : time_typed<float>(world, shape, local_experts, num_rows);
}

std::vector<ExpertRow> measure_experts(const comm::ProcessGrid& grid, const BenchShape& shape,
                                       const Roofs& roofs,
                                       const std::vector<std::int64_t>& tokens) {
  const int num_ranks = grid.expert().size();
  const BlockDistribution blocks{shape.config.num_experts, num_ranks};
  std::vector<ExpertRow> result;
  if (blocks.count(num_ranks - 1) == 0)
    return result;  // a rank without experts has nothing to time
  const std::int64_t local = blocks.count(grid.expert().rank());
  for (const std::int64_t each : tokens) {
    const std::int64_t num_rows = each * local;
    const ExpertSeconds seconds = time_experts(grid.world(), shape, local, num_rows);
    const auto work = [&](bool backward) {
      return expert_work(shape.config, static_cast<double>(num_rows), static_cast<double>(local),
                         shape.element_bytes(), backward);
    };
    const auto row = [&](const char* name, double value, const Work& done) {
      return make_row(grid.world(), fmt::format("{} tokens per expert, {}", each, name), value,
                      done, roofs, shape.dtype);
    };
    result.push_back(
        {each, row("forward", seconds.forward, work(false)),
         row("backward", seconds.backward, work(true)),
         row("both", seconds.forward + seconds.backward, sum(work(false), work(true)))});
  }
  return result;
}

}  // namespace tessera::apps
