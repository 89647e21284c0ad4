// SPDX-License-Identifier: Apache-2.0
// The experts' MLPs: gradients against central differences, and experts without rows.
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <random>
#include <tessera/moe/expert.hpp>
#include <vector>

namespace tessera::moe {
namespace {

constexpr std::int64_t experts = 3, hidden = 6, intermediate = 4;
const std::vector<std::int64_t> offsets{0, 4, 4, 9};  // the second expert has no row
constexpr std::int64_t num_rows = 9;

std::vector<float> random_values(std::int64_t size, int seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-0.7f, 0.7f);
  std::vector<float> values(static_cast<std::size_t>(size));
  for (float& value : values) value = uniform(random);
  return values;
}

struct Problem {
  kernel::Activation kind = kernel::Activation::clamped_swiglu;
  bool has_bias = true;
  std::vector<float> gate_up = random_values(experts * 2 * intermediate * hidden, 1);
  std::vector<float> gate_up_bias = random_values(experts * 2 * intermediate, 2);
  std::vector<float> down = random_values(experts * hidden * intermediate, 3);
  std::vector<float> down_bias = random_values(experts * hidden, 4);
  std::vector<float> rows = random_values(num_rows * hidden, 5);
  std::vector<float> doutputs = random_values(num_rows * hidden, 6);
  kernel::Vector<std::int32_t> row_expert{"row_expert", num_rows};

  Problem() {
    for (std::int64_t e = 0; e < experts; ++e) {
      for (std::int64_t r = offsets[e]; r < offsets[e + 1]; ++r) row_expert(r) = e;
    }
  }
  ExpertWeights<float> weights() const {
    ExpertWeights<float> w;
    w.local_experts = experts;
    w.hidden_size = hidden;
    w.intermediate_size = intermediate;
    w.gate_up = gate_up.data();
    w.gate_up_bias = has_bias ? gate_up_bias.data() : nullptr;
    w.down = down.data();
    w.down_bias = has_bias ? down_bias.data() : nullptr;
    w.activation.kind = kind;
    w.activation.limit = 0.9f;  // low, so that some rows are clamped
    return w;
  }
  kernel::Matrix<float> input() { return kernel::Matrix<float>(rows.data(), num_rows, hidden); }
  double loss() {
    ExpertSaved<float> saved;
    const kernel::Matrix<float> out("outputs", num_rows, hidden);
    expert_forward<float>({}, weights(), offsets, row_expert, input(), saved, out);
    double sum = 0.0;
    for (std::int64_t i = 0; i < num_rows * hidden; ++i) sum += double(out.data()[i]) * doutputs[i];
    return sum;
  }
};

void check_gradient(Problem& problem, std::vector<float>& values, const float* gradient) {
  constexpr float h = 1e-3f;  // small, so that hardly any step crosses the clamp's kink
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    values[i] = value + h;
    const double above = problem.loss();
    values[i] = value - h;
    const double below = problem.loss();
    values[i] = value;
    CHECK(gradient[i] == Approx((above - below) / (2.0 * h)).margin(2e-3).epsilon(1e-2));
  }
}

}  // namespace

TEST_CASE("Expert gradients are central differences of the outputs") {
  Problem problem;
  ExpertSaved<float> saved;
  const kernel::Matrix<float> out("outputs", num_rows, hidden), drows("drows", num_rows, hidden);
  expert_forward<float>({}, problem.weights(), offsets, problem.row_expert, problem.input(), saved,
                        out);
  std::vector<float> dgate_up(problem.gate_up.size()), dgate_up_bias(problem.gate_up_bias.size());
  std::vector<float> ddown(problem.down.size()), ddown_bias(problem.down_bias.size());
  expert_backward<float>({}, problem.weights(), offsets, saved,
                         kernel::Matrix<const float>(problem.doutputs.data(), num_rows, hidden),
                         {dgate_up.data(), dgate_up_bias.data(), ddown.data(), ddown_bias.data()},
                         drows);
  check_gradient(problem, problem.gate_up, dgate_up.data());
  check_gradient(problem, problem.gate_up_bias, dgate_up_bias.data());
  check_gradient(problem, problem.down, ddown.data());
  check_gradient(problem, problem.down_bias, ddown_bias.data());
  check_gradient(problem, problem.rows, drows.data());
}

TEST_CASE("Experts with plain SwiGLU and without biases have the gradients of their outputs") {
  Problem problem;
  problem.kind = kernel::Activation::swiglu;
  problem.has_bias = false;
  ExpertSaved<float> saved;
  const kernel::Matrix<float> out("outputs", num_rows, hidden), drows("drows", num_rows, hidden);
  expert_forward<float>({}, problem.weights(), offsets, problem.row_expert, problem.input(), saved,
                        out);
  std::vector<float> dgate_up(problem.gate_up.size()), ddown(problem.down.size());
  expert_backward<float>({}, problem.weights(), offsets, saved,
                         kernel::Matrix<const float>(problem.doutputs.data(), num_rows, hidden),
                         {.gate_up = dgate_up.data(), .down = ddown.data()}, drows);
  check_gradient(problem, problem.gate_up, dgate_up.data());
  check_gradient(problem, problem.down, ddown.data());
  check_gradient(problem, problem.rows, drows.data());
}

TEST_CASE("An expert without rows has a gradient of exact zeros, and no row at all is no error") {
  Problem problem;
  const std::vector<std::int64_t> none(experts + 1, 0);
  ExpertSaved<float> saved;
  const kernel::Matrix<float> empty("empty", 0, hidden);
  expert_forward<float>({}, problem.weights(), none, kernel::Vector<std::int32_t>("row_expert", 0),
                        empty, saved, empty);
  std::vector<float> gradient(problem.gate_up.size(), 0.0f);
  expert_backward<float>({}, problem.weights(), none, saved, empty,
                         {gradient.data(), gradient.data(), gradient.data(), gradient.data()},
                         empty);
  for (const float value : gradient) CHECK(value == 0.0f);
}

}  // namespace tessera::moe
