// SPDX-License-Identifier: Apache-2.0
// Tokens reach the ranks of their experts and come back: dispatch, identity, combine is the
// identity.
#include <catch2/catch.hpp>
#include <random>
#include <tessera/moe/dispatch.hpp>

#include "support/collective_check.hpp"

namespace tessera::moe {
namespace {

constexpr std::int64_t hidden = 5;

enum class Choice { random, one_expert, only_rank_0 };

/// Choices of this rank's tokens: distinct experts per token, the same for the same seed.
kernel::Matrix<std::int32_t> choices(Choice choice, std::int64_t tokens, std::int64_t num_experts,
                                     std::int64_t top_k, int seed) {
  std::mt19937 random(seed);
  const kernel::Matrix<std::int32_t> index("choices", tokens, top_k);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto first = choice == Choice::one_expert
                           ? num_experts - top_k
                           : static_cast<std::int64_t>(random() % num_experts);
    for (std::int64_t k = 0; k < top_k; ++k) {
      index(t, k) = static_cast<std::int32_t>((first + k) % num_experts);
    }
  }
  return index;
}

template <class T>
kernel::Matrix<T> rows_of_rank(std::int64_t tokens, int rank) {
  const kernel::Matrix<T> x("x", tokens, hidden);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t c = 0; c < hidden; ++c) {
      x(t, c) = T(static_cast<float>((rank * 31 + t * 7 + c) % 64));
    }
  }
  return x;
}

/// The same rows where the exchange takes results from.
template <class T>
kernel::Matrix<T> results(TokenExchange& exchange, const DispatchHandle& handle,
                          const kernel::Matrix<const T>& rows) {
  const auto copy = exchange.results<T>(handle, rows.extent(1));
  Kokkos::deep_copy(copy, rows);
  return copy;
}

template <class T>
void check_round_trip(TokenExchange& exchange, Choice choice, std::int64_t num_experts) {
  const comm::Communicator& axis = exchange.axis();
  constexpr std::int64_t top_k = 2;
  const std::int64_t tokens = choice == Choice::only_rank_0 && axis.rank() > 0 ? 0 : 11;
  const auto index = choices(choice, tokens, num_experts, top_k, axis.rank());
  const auto x = rows_of_rank<T>(tokens, axis.rank());
  const DispatchHandle handle = plan_dispatch(exchange, num_experts, index);

  const auto rows = dispatch_forward<T>(exchange, handle, x);
  CHECK(static_cast<std::int64_t>(rows.extent(0)) == handle.num_received);
  CHECK(handle.expert_offset.back() == handle.num_received);
  const std::int64_t received =
      axis.all_reduce_value("received", handle.num_received, comm::ReduceOp::sum);
  const std::int64_t sent = axis.all_reduce_value("sent", tokens * top_k, comm::ReduceOp::sum);
  CHECK(received == sent);

  // With identity experts and weights 1/4 and 3/4 each token gets itself back.
  const kernel::Matrix<float> weight("weight", tokens, top_k), y("y", tokens, hidden);
  for (std::int64_t t = 0; t < tokens; ++t) weight(t, 0) = 0.25f, weight(t, 1) = 0.75f;
  const auto outputs = finish_combine_forward<T>(
      exchange, handle,
      start_combine_forward<T>(exchange, handle, results<T>(exchange, handle, rows)), weight, y, y);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t c = 0; c < hidden; ++c) CHECK(y(t, c) == static_cast<float>(x(t, c)));
  }

  // Backward of combine and dispatch: weights sum to one, so dx = dy again; dweight = <dy, x>.
  const kernel::Matrix<float> dy("dy", tokens, hidden), dweight("dweight", tokens, top_k);
  const kernel::Matrix<float> dx("dx", tokens, hidden);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t c = 0; c < hidden; ++c) dy(t, c) = static_cast<float>(4 * (t + c));
  }
  const kernel::Matrix<const T> doutputs = finish_combine_backward<T>(
      exchange, handle, start_combine_backward<T>(exchange, handle, outputs, weight, dy, dweight));
  auto returning =
      start_dispatch_backward<T>(exchange, handle, results<T>(exchange, handle, doutputs));
  finish_dispatch_backward<T>(exchange, handle, std::move(returning), dx);
  for (std::int64_t t = 0; t < tokens; ++t) {
    float product = 0.0f;
    for (std::int64_t c = 0; c < hidden; ++c) {
      CHECK(dx(t, c) == dy(t, c));
      product += dy(t, c) * static_cast<float>(x(t, c));
    }
    for (std::int64_t k = 0; k < top_k; ++k) CHECK(dweight(t, k) == Approx(product));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("Dispatch and combine of identity experts is the identity, forward and backward",
                   "", float, bf16) {
  const comm::Communicator axis(MPI_COMM_WORLD, "expert");
  TokenExchange exchange(axis);
  for (const Choice choice : {Choice::random, Choice::one_expert, Choice::only_rank_0}) {
    for (const std::int64_t num_experts : {2, 8, 13}) {
      INFO("choice " << static_cast<int>(choice) << ", " << num_experts << " experts");
      check_round_trip<TestType>(exchange, choice, num_experts);
    }
  }
}

TEST_CASE("Rows arrive at the rank of their expert, grouped by it") {
  const comm::Communicator axis(MPI_COMM_WORLD, "expert");
  constexpr std::int64_t num_experts = 8, tokens = 9;
  const BlockDistribution blocks{num_experts, axis.size()};
  const auto index = choices(Choice::random, tokens, num_experts, 1, 5 + axis.rank());
  const kernel::Matrix<float> x("x", tokens, 1);
  for (std::int64_t t = 0; t < tokens; ++t) x(t, 0) = static_cast<float>(index(t, 0));
  TokenExchange exchange(axis);
  const DispatchHandle handle = plan_dispatch(exchange, num_experts, index);
  const auto rows = dispatch_forward<float>(exchange, handle, x);
  for (std::int64_t row = 0; row < handle.num_received; ++row) {
    const auto expert = static_cast<std::int64_t>(rows(row, 0));
    CHECK(blocks.owner(expert) == axis.rank());
    const auto local = static_cast<std::size_t>(expert - blocks.begin(axis.rank()));
    CHECK(handle.expert_offset[local] <= row);
    CHECK(row < handle.expert_offset[local + 1]);
  }
}

}  // namespace tessera::moe
