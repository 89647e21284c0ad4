// SPDX-License-Identifier: Apache-2.0
// The router's choice against its reference, its ties and NaNs, and the softmax gradients against
// central differences.
#include "kernel/top_k.hpp"

#include <catch2/catch.hpp>

#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

struct Choice {
  Matrix<std::int32_t> index;
  Matrix<float> weight;
};

Choice choose(const Matrix<float>& logits, std::int64_t choices) {
  Choice choice{Matrix<std::int32_t>("index", logits.extent(0), choices),
                Matrix<float>("weight", logits.extent(0), choices)};
  top_k_softmax_forward(Execution(), logits, choice.index, choice.weight);
  return choice;
}

/// Logits of few distinct values, so that most rows have ties.
Matrix<float> tied_logits(std::int64_t rows, std::int64_t experts) {
  const auto logits = random_matrix<float>(rows, experts, 31, -2.0, 2.0);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits.data()[i] = std::round(2.0f * logits.data()[i]) / 2.0f;
  }
  return logits;
}

void check_against_reference(const Matrix<float>& logits, std::int64_t choices) {
  const Choice choice = choose(logits, choices);
  const auto index = copy_of(choice.index);
  const auto weight = copy_of(choice.weight);
  reference::top_k_softmax_forward(logits, index, weight);
  CHECK(distance(choice.index, index) == 0.0);
  CHECK(distance(choice.weight, weight) <= tolerance<float>());

  const auto dweight = random_matrix<float>(logits.extent(0), choices, 32);
  auto dlogits = random_matrix<float>(logits.extent(0), logits.extent(1), 33);
  auto expected = copy_of(dlogits);
  top_k_softmax_backward(Execution(), index, weight, dweight, dlogits);
  reference::top_k_softmax_backward(index, weight, dweight, expected);
  CHECK(distance(dlogits, expected) <= tolerance<float>());

  const auto g = random_vector<float>(logits.extent(1), 34);
  softmax_backward_accumulate(Execution(), logits, g, dlogits);
  reference::softmax_backward_accumulate(logits, g, expected);
  // A distance of 16 between two logits is rounded by up to 1e-6, and a probability with it.
  CHECK(distance(dlogits, expected) <= 4 * tolerance<float>());
}

void check_probabilities_against_reference(const Matrix<float>& logits, std::int64_t choices) {
  const auto index = choose(logits, choices).index, index_expected = copy_of(index);
  Matrix<float> weight("weight", logits.extent(0), choices);
  const auto weight_expected = copy_of(weight);
  top_k_probability_forward(Execution(), logits, index, weight);
  reference::top_k_probability_forward(logits, index_expected, weight_expected);
  CHECK(distance(index, index_expected) == 0.0);
  CHECK(distance(weight, weight_expected) <= 2 * tolerance<float>());

  const auto dweight = random_matrix<float>(logits.extent(0), choices, 32);
  auto dlogits = random_matrix<float>(logits.extent(0), logits.extent(1), 33);
  const auto expected = copy_of(dlogits);
  top_k_probability_backward(Execution(), logits, index, weight_expected, dweight, dlogits);
  reference::top_k_probability_backward(logits, index, weight_expected, dweight, expected);
  CHECK(distance(dlogits, expected) <= 4 * tolerance<float>());
}

void check_statistics(const Matrix<float>& logits, std::int64_t choices) {
  const std::int64_t experts = logits.extent(1);
  const Choice choice = choose(logits, choices);
  Vector<double> sum("sum", experts), count("count", experts);
  Kokkos::deep_copy(sum, 0.5);
  Kokkos::deep_copy(count, 2.0);
  const auto sum_expected = copy_of(sum);
  const auto count_expected = copy_of(count);
  router_statistics(Execution(), logits, choice.index, sum, count);
  reference::router_statistics(logits, choice.index, sum_expected, count_expected);
  CHECK(distance(sum, sum_expected) <= tolerance<float>());
  CHECK(distance(count, count_expected) == 0.0);
}

}  // namespace

TEST_CASE("The router's choice, gradients and statistics agree with their references") {
  for (const auto& [rows, experts, choices] :
       {std::tuple{1, 1, 1}, {3, 4, 4}, {19, 32, 4}, {300, 20, 3}, {5, 512, 128}, {0, 8, 2}}) {
    CAPTURE(rows, experts, choices);
    const auto logits = random_matrix<float>(rows, experts, 35, -8.0, 8.0);
    check_against_reference(logits, choices);
    check_statistics(logits, choices);
    check_against_reference(tied_logits(rows, experts), choices);
    check_probabilities_against_reference(logits, choices);
    check_probabilities_against_reference(tied_logits(rows, experts), choices);
  }
}

TEST_CASE("Of equal logits the lower expert comes first") {
  Matrix<float> logits("logits", 2, 5);
  const float rows[2][5] = {{1.0f, 2.0f, 2.0f, 1.0f, 2.0f}, {-0.0f, -1.0f, 0.0f, -0.0f, -1.0f}};
  for (int t = 0; t < 2; ++t) {
    for (int e = 0; e < 5; ++e) logits(t, e) = rows[t][e];
  }
  const Choice choice = choose(logits, 4);
  const std::int32_t expected[2][4] = {{1, 2, 4, 0}, {0, 2, 3, 1}};
  for (int t = 0; t < 2; ++t) {
    for (int j = 0; j < 4; ++j) CHECK(choice.index(t, j) == expected[t][j]);
  }
}

TEST_CASE("NaN and infinite logits choose distinct experts and show in the weights") {
  Matrix<float> logits("logits", 3, 4);
  Kokkos::deep_copy(logits, NAN);
  logits(1, 0) = 1.0f;
  logits(1, 2) = INFINITY;
  for (int e = 0; e < 4; ++e) logits(2, e) = -INFINITY;
  logits(2, 3) = 0.0f;
  const Choice choice = choose(logits, 3);
  const std::int32_t expected[3][3] = {{0, 1, 2}, {1, 3, 2}, {3, 0, 1}};
  for (int t = 0; t < 3; ++t) {
    for (int j = 0; j < 3; ++j) CHECK(choice.index(t, j) == expected[t][j]);
  }
  CHECK(std::isnan(choice.weight(0, 0)));
  CHECK(std::isnan(choice.weight(1, 2)));
  CHECK(choice.weight(2, 0) == 1.0f);
  CHECK(choice.weight(2, 1) == 0.0f);
}

TEST_CASE("The gradients of the router's weights agree with central differences") {
  const std::int64_t rows = 4, experts = 9, choices = 3;
  // Distances between logits exceed the step, so that no choice flips.
  Matrix<float> logits("logits", rows, experts);
  const auto order = random_slots(rows, experts, 36);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits.data()[i] = 0.1f * static_cast<float>(order.data()[i] % 29);
  }
  const auto dweight = random_matrix<float>(rows, choices, 37);
  Choice choice = choose(logits, choices);
  Matrix<float> dlogits("dlogits", rows, experts);
  reference::top_k_softmax_backward(choice.index, choice.weight, dweight, dlogits);
  const auto loss = [&] {
    reference::top_k_softmax_forward(logits, choice.index, choice.weight);
    return weighted_sum(choice.weight, dweight);
  };
  CHECK(distance(dlogits, central_differences(logits, loss)) < 1e-3);

  const auto probability_loss = [&] {
    reference::top_k_probability_forward(logits, choice.index, choice.weight);
    return weighted_sum(choice.weight, dweight);
  };
  probability_loss();
  reference::top_k_probability_backward(logits, choice.index, choice.weight, dweight, dlogits);
  CHECK(distance(dlogits, central_differences(logits, probability_loss)) < 1e-3);
}

TEST_CASE("The gradient through all probabilities agrees with central differences") {
  auto logits = random_matrix<float>(5, 11, 38, -2.0, 2.0);
  const auto g = random_vector<float>(11, 39);
  const auto index = choose(logits, 2).index;
  const auto loss = [&] {
    Vector<double> sum("sum", 11), count("count", 11);
    reference::router_statistics(logits, index, sum, count);
    return weighted_sum(sum, g);
  };
  Matrix<float> dlogits("dlogits", 5, 11);
  reference::softmax_backward_accumulate(logits, g, dlogits);
  CHECK(distance(dlogits, central_differences(logits, loss)) < 1e-4);
}
