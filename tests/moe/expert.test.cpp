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
    expert_forward<float>({}, weights(), offsets, input(), saved, out);
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

/// Both parts.
void backward(const ExpertWeights<float>& weights, const std::vector<std::int64_t>& expert_offset,
              const ExpertSaved<float>& saved, kernel::Matrix<const float> doutputs,
              const ExpertGradients& gradients, kernel::Into into, kernel::Matrix<float> drows) {
  const auto dhidden = expert_backward_rows<float>({}, weights, expert_offset, saved, doutputs,
                                                   gradients, into, drows);
  expert_backward_gate_up<float>({}, weights, expert_offset, saved, dhidden, gradients, into);
}

}  // namespace

TEST_CASE("Expert gradients are central differences of the outputs") {
  Problem problem;
  ExpertSaved<float> saved;
  const kernel::Matrix<float> out("outputs", num_rows, hidden), drows("drows", num_rows, hidden);
  expert_forward<float>({}, problem.weights(), offsets, problem.input(), saved, out);
  std::vector<float> dgate_up(problem.gate_up.size()), dgate_up_bias(problem.gate_up_bias.size());
  std::vector<float> ddown(problem.down.size()), ddown_bias(problem.down_bias.size());
  backward(problem.weights(), offsets, saved,
           kernel::Matrix<const float>(problem.doutputs.data(), num_rows, hidden),
           {dgate_up.data(), dgate_up_bias.data(), ddown.data(), ddown_bias.data()},
           kernel::Into::accumulate, drows);
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
  expert_forward<float>({}, problem.weights(), offsets, problem.input(), saved, out);
  std::vector<float> dgate_up(problem.gate_up.size()), ddown(problem.down.size());
  backward(problem.weights(), offsets, saved,
           kernel::Matrix<const float>(problem.doutputs.data(), num_rows, hidden),
           {.gate_up = dgate_up.data(), .down = ddown.data()}, kernel::Into::accumulate, drows);
  check_gradient(problem, problem.gate_up, dgate_up.data());
  check_gradient(problem, problem.down, ddown.data());
  check_gradient(problem, problem.rows, drows.data());
}

TEST_CASE("An expert without rows has a gradient of exact zeros, and no row at all is no error") {
  Problem problem;
  const std::vector<std::int64_t> none(experts + 1, 0);
  ExpertSaved<float> saved;
  const kernel::Matrix<float> empty("empty", 0, hidden);
  expert_forward<float>({}, problem.weights(), none, empty, saved, empty);
  std::vector<float> gradient(problem.gate_up.size(), 0.0f);
  backward(problem.weights(), none, saved, empty,
           {gradient.data(), gradient.data(), gradient.data(), gradient.data()},
           kernel::Into::accumulate, empty);
  for (const float value : gradient) CHECK(value == 0.0f);
}

TEST_CASE("Overwritten gradients are those added to zeros, also of an expert without rows") {
  Problem problem;
  ExpertSaved<float> saved;
  const kernel::Matrix<float> out("out", num_rows, hidden), drows("drows", num_rows, hidden);
  expert_forward<float>({}, problem.weights(), offsets, problem.input(), saved, out);
  const auto gradients = [&](float before, kernel::Into into) {
    std::vector<float> gate_up(problem.gate_up.size(), before), down(problem.down.size(), before);
    std::vector<float> gate_up_bias(problem.gate_up_bias.size(), before);
    std::vector<float> down_bias(problem.down_bias.size(), before);
    backward(problem.weights(), offsets, saved,
             kernel::Matrix<const float>(problem.doutputs.data(), num_rows, hidden),
             {gate_up.data(), gate_up_bias.data(), down.data(), down_bias.data()}, into, drows);
    return std::vector{gate_up, gate_up_bias, down, down_bias};
  };
  const auto added = gradients(0.0f, kernel::Into::accumulate);
  CHECK(gradients(NAN, kernel::Into::overwrite) == added);
  CHECK(gradients(NAN, kernel::Into::overwrite_far) == added);
}

TEST_CASE("Experts in bf16 compute what those in f32 compute with the same weights, rounded") {
  Problem problem;
  const auto narrow = [](std::vector<float>& values) {
    std::vector<bf16> rounded(values.begin(), values.end());
    values.assign(rounded.begin(), rounded.end());
    return rounded;
  };
  const auto gate_up = narrow(problem.gate_up), gate_up_bias = narrow(problem.gate_up_bias);
  const auto down = narrow(problem.down), down_bias = narrow(problem.down_bias);
  auto rows = narrow(problem.rows);
  const ExpertWeights<float> wide = problem.weights();
  const ExpertWeights<bf16> weights{
      experts,     hidden,           intermediate,   gate_up.data(), gate_up_bias.data(),
      down.data(), down_bias.data(), wide.activation};
  const kernel::Matrix<float> expected("expected", num_rows, hidden);
  const kernel::Matrix<bf16> out("out", num_rows, hidden);
  ExpertSaved<float> wide_saved;
  ExpertSaved<bf16> saved;
  expert_forward<float>({}, wide, offsets, problem.input(), wide_saved, expected);
  expert_forward<bf16>({}, weights, offsets, kernel::Matrix<bf16>(rows.data(), num_rows, hidden),
                       saved, out);
  for (std::int64_t r = 0; r < num_rows; ++r) {
    for (std::int64_t c = 0; c < hidden; ++c) {
      CHECK(static_cast<float>(out(r, c)) == Approx(expected(r, c)).margin(0.02).epsilon(0.02));
    }
  }
}

}  // namespace tessera::moe
