// SPDX-License-Identifier: Apache-2.0
// The auxiliary loss over all ranks: its value by hand and its gradient against central
// differences.
#include <catch2/catch.hpp>
#include <tessera/moe/load_balance.hpp>

#include "kernel/top_k.hpp"
#include "support/collective_check.hpp"

namespace tessera::moe {
namespace {

constexpr std::int64_t num_experts = 5, top_k = 2;

Routing routing_of(const kernel::Matrix<float>& logits) {
  const auto tokens = logits.extent(0);
  Routing routing{logits, kernel::Matrix<std::int32_t>("index", tokens, top_k),
                  kernel::Matrix<float>("weight", tokens, top_k)};
  kernel::top_k_softmax_forward({}, routing.logits, routing.index, routing.weight);
  return routing;
}

kernel::Matrix<float> logits_of_rank(int rank) {
  const kernel::Matrix<float> logits("logits", 3 + rank, num_experts);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits.data()[i] = 0.3f * static_cast<float>((i * 7 + 3 * rank) % 11);
  }
  return logits;
}

double loss_of(const comm::Communicator& world, const kernel::Matrix<float>& logits) {
  LoadBalance balance(num_experts);
  balance.add({}, routing_of(logits));
  balance.finish(world);
  return balance.loss();
}

}  // namespace

TEST_CASE("Balanced routing has the loss top_k") {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const kernel::Matrix<float> logits("logits", num_experts, num_experts);
  for (std::int64_t t = 0; t < num_experts; ++t) {
    logits(t, t) = 1e-3f;  // barely preferred: probabilities stay uniform, choices rotate
    logits(t, (t + 1) % num_experts) = 1e-3f;
  }
  CHECK(loss_of(world, logits) == Approx(static_cast<double>(top_k)).epsilon(1e-6));
}

TEST_CASE("The gradient is that of the loss over all ranks' tokens") {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const kernel::Matrix<float> logits = logits_of_rank(world.rank());
  const Routing routing = routing_of(logits);
  LoadBalance balance(num_experts);
  balance.add({}, routing);
  balance.finish(world);
  const kernel::Matrix<float> dlogits("dlogits", logits.extent(0), num_experts);
  kernel::softmax_backward_accumulate({}, routing.logits, balance.gradient(1.0), dlogits);
  // All ranks move one element of rank 0 together, so that they call alike.
  constexpr float h = 1e-2f;
  for (std::int64_t e = 0; e < num_experts; ++e) {
    float& element = logits(1, e);
    const float value = element, step = world.rank() == 0 ? h : 0.0f;
    element = value + step;
    const double above = loss_of(world, logits);
    element = value - step;
    const double below = loss_of(world, logits);
    element = value;
    if (world.rank() == 0) {
      CHECK(dlogits(1, e) == Approx((above - below) / (2.0 * h)).margin(2e-4));
    }
  }
}

TEST_CASE("Ranks without tokens take part") {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const kernel::Matrix<float> none("logits", 0, num_experts);
  CHECK(loss_of(world, none) == 0.0);
}

}  // namespace tessera::moe
