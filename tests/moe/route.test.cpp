// SPDX-License-Identifier: Apache-2.0
// The router as a whole: weights of each score, and gradients of its input, weight and bias against
// central differences of everything that the loss sees.
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <tessera/moe/route.hpp>
#include <vector>

namespace tessera::moe {
namespace {

constexpr std::int64_t tokens = 5, experts = 8, hidden = 6, top_k = 3;

std::vector<float> random_values(std::int64_t size, int seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(static_cast<std::size_t>(size));
  for (float& value : values) value = uniform(random);
  return values;
}

struct Problem {
  RouterOptions options;
  std::vector<float> x = random_values(tokens * hidden, 1);
  std::vector<float> weight = random_values(experts * hidden, 2);
  std::vector<float> bias = random_values(experts, 3);
  std::vector<float> correction_bias = random_values(experts, 4);
  std::vector<float> drouting_weight = random_values(tokens * top_k, 5);
  std::vector<float> aux_gradient = random_values(experts, 6);

  Router router() {
    return {kernel::Matrix<float>(weight.data(), experts, hidden),
            kernel::Vector<float>(bias.data(), bias.size()),
            kernel::Vector<float>(correction_bias.data(), correction_bias.size()), options};
  }
  kernel::Matrix<float> input() { return kernel::Matrix<float>(x.data(), tokens, hidden); }

  /// The chosen weights times drouting_weight, and all probabilities times aux_gradient.
  double loss() {
    const Routing routing = route_forward({}, router(), input());
    double sum = 0.0;
    for (std::int64_t i = 0; i < tokens * top_k; ++i) {
      sum += static_cast<double>(routing.weight.data()[i]) * drouting_weight[i];
    }
    for (std::int64_t t = 0; t < tokens && !aux_gradient.empty(); ++t) {
      double total = 0.0, mean = 0.0;
      for (std::int64_t e = 0; e < experts; ++e) {
        total += std::exp(static_cast<double>(routing.logits(t, e)));
        mean += std::exp(static_cast<double>(routing.logits(t, e))) * aux_gradient[e];
      }
      sum += mean / total;
    }
    return sum;
  }
};

void check_gradient(Problem& problem, std::vector<float>& values,
                    const std::vector<float>& gradient) {
  constexpr float h = 1e-3f;  // small, so that no choice flips
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    values[i] = value + h;
    const double above = problem.loss();
    values[i] = value - h;
    const double below = problem.loss();
    values[i] = value;
    CHECK(gradient[i] == Approx((above - below) / (2.0 * h)).margin(1e-3).epsilon(1e-2));
  }
}

void check_gradients(Problem problem) {
  const Routing routing = route_forward({}, problem.router(), problem.input());
  std::vector<float> dx(problem.x.size()), dweight(problem.weight.size());
  std::vector<float> dbias(problem.bias.size());
  route_backward({}, problem.router(), routing, problem.input(),
                 kernel::Matrix<float>(problem.drouting_weight.data(), tokens, top_k),
                 kernel::Vector<float>(problem.aux_gradient.data(), problem.aux_gradient.size()),
                 kernel::Matrix<float>(dx.data(), tokens, hidden),
                 kernel::Matrix<float>(dweight.data(), experts, hidden),
                 kernel::Vector<float>(dbias.data(), dbias.size()));
  check_gradient(problem, problem.x, dx);
  check_gradient(problem, problem.weight, dweight);
  check_gradient(problem, problem.bias, dbias);
}

/// Sum of the weights of token t.
double weight_sum(const Routing& routing, std::int64_t t) {
  double sum = 0.0;
  for (std::int64_t k = 0; k < top_k; ++k) sum += routing.weight(t, k);
  return sum;
}

}  // namespace

TEST_CASE("Gradients of the router are central differences for every score") {
  for (const bool normalize : {true, false}) {
    CAPTURE(normalize);
    check_gradients({.options = {RouterScore::softmax_of_chosen, top_k, normalize}});
    check_gradients({.options = {RouterScore::softmax, top_k, normalize}});
    check_gradients(
        {.options = {RouterScore::softmax, top_k, normalize}, .bias = {}, .aux_gradient = {}});
    check_gradients({.options = {RouterScore::sigmoid, top_k, normalize, 2.5, 4, 2},
                     .bias = {},
                     .aux_gradient = {}});
  }
}

TEST_CASE("Weights sum to one where the options say so, and sigmoid weights to the scale") {
  Problem problem;
  const auto routing_for = [&](const RouterOptions& options) {
    problem.options = options;
    return route_forward({}, problem.router(), problem.input());
  };
  const Routing of_chosen = routing_for({RouterScore::softmax_of_chosen, top_k});
  const Routing normalized = routing_for({RouterScore::softmax, top_k, true});
  const Routing plain = routing_for({RouterScore::softmax, top_k, false});
  const Routing sigmoid = routing_for({RouterScore::sigmoid, top_k, true, 2.5, 4, 2});
  for (std::int64_t t = 0; t < tokens; ++t) {
    CHECK(weight_sum(of_chosen, t) == Approx(1.0));
    CHECK(weight_sum(normalized, t) == Approx(1.0));
    CHECK(weight_sum(plain, t) < 0.999);
    CHECK(weight_sum(sigmoid, t) == Approx(2.5));
    for (std::int64_t k = 0; k < top_k; ++k) {
      CHECK(normalized.weight(t, k) == Approx(plain.weight(t, k) / weight_sum(plain, t)));
    }
  }
}

TEST_CASE("The correction bias changes the choice and not the weights of the chosen") {
  Problem problem;
  problem.options = {RouterScore::sigmoid, top_k, false, 1.0, 1, 1};
  problem.correction_bias = std::vector<float>(experts, -1.0f);
  for (int e = 5; e < experts; ++e) problem.correction_bias[e] = 1.0f;
  const Routing routing = route_forward({}, problem.router(), problem.input());
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      const std::int32_t e = routing.index(t, k);
      CHECK(e >= 5);
      CHECK(routing.weight(t, k) == Approx(1.0 / (1.0 + std::exp(-routing.logits(t, e)))));
    }
  }
}

}  // namespace tessera::moe
