// SPDX-License-Identifier: Apache-2.0
// AdamW and SGD against numbers that torch computed and against their references.
#include "kernel/optimizer.hpp"

#include <catch2/catch.hpp>

#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

Vector<float> vector_of(const std::vector<double>& values) {
  Vector<float> vector("values", values.size());
  for (std::size_t i = 0; i < values.size(); ++i) vector(i) = static_cast<float>(values[i]);
  return vector;
}

const std::vector<double> start = {0.5, -1.25, 2.0, 0.0, -0.75};
// Given to the kernels with gradient_scale 0.5, to torch multiplied by 0.5.
const std::vector<std::vector<double>> gradients = {
    {0.1, -0.2, 0.0, 1e-3, 3.0}, {0.05, 0.4, -1.0, -2e-3, -1.5}, {-0.3, 0.25, 0.5, 1e-4, 0.75}};

AdamwStep options_of_step(std::int64_t step) {
  AdamwStep options;
  options.learning_rate = 0.01;
  options.beta1 = 0.9;
  options.beta2 = 0.95;
  options.weight_decay = 0.1;
  options.step = step;
  options.gradient_scale = 0.5;
  return options;
}

/// Elements of `copy` that are not the parameter rounded to bf16.
int num_unlike(const Vector<bf16>& copy, const Vector<float>& parameter) {
  int num = 0;
  for (std::size_t i = 0; i < copy.size(); ++i) num += copy(i).bits != bf16(parameter(i)).bits;
  return num;
}

}  // namespace

// torch.optim.AdamW(lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1), torch 2.15 in f64.
TEST_CASE("Three AdamW steps give torch's numbers") {
  const std::vector<std::vector<double>> expected = {
      {0.489500002, -1.238750001, 1.998, -0.009999800004, -0.759249999933},
      {0.47961757371, -1.24114499028, 2.00335159982, -0.00635610631269, -0.761174444391},
      {0.482543400272, -1.24548123494, 2.00362393711, -0.00379469020652, -0.763880086198}};
  const auto parameter = vector_of(start);
  const Vector<float> exp_avg("exp_avg", 5), exp_avg_sq("exp_avg_sq", 5);
  for (std::size_t k = 0; k < 3; ++k) {
    adamw(Execution(), options_of_step(static_cast<std::int64_t>(k) + 1), vector_of(gradients[k]),
          parameter, exp_avg, exp_avg_sq, Vector<float>());
    for (std::size_t i = 0; i < 5; ++i) {
      CHECK(parameter(i) == Approx(expected[k][i]).epsilon(1e-6));
    }
  }
  const double expected_avg[5] = {-0.0087, 0.0224, -0.02, -4.45e-05, 0.0915};
  const double expected_avg_sq[5] = {0.0012675, 0.0031325, 0.015, 5.890625e-08, 0.13528125};
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(exp_avg(i) == Approx(expected_avg[i]).epsilon(2e-6).margin(0.0));
    CHECK(exp_avg_sq(i) == Approx(expected_avg_sq[i]).epsilon(2e-6).margin(0.0));
  }
}

// torch.optim.SGD(lr=0.1, weight_decay=0.01), torch 2.15 in f64.
TEST_CASE("Three SGD steps give torch's numbers") {
  const std::vector<std::vector<double>> expected = {
      {0.4945, -1.23875, 1.998, -5e-05, -0.89925},
      {0.4915055, -1.25751125, 2.046002, 5.005e-05, -0.82335075},
      {0.5060139945, -1.26875373875, 2.018955998, 4.499995e-05, -0.86002739925}};
  const auto parameter = vector_of(start);
  for (std::size_t k = 0; k < 3; ++k) {
    sgd(Execution(), 0.1, 0.01, 0.5, vector_of(gradients[k]), parameter, Vector<float>());
    for (std::size_t i = 0; i < 5; ++i) {
      CHECK(parameter(i) == Approx(expected[k][i]).epsilon(1e-6).margin(1e-11));
    }
  }
}

TEST_CASE("Optimizer steps agree with their references for odd sizes") {
  for (const std::int64_t size : {0, 1, 17, 1031, 5000}) {
    const auto gradient = random_vector<float>(size, 1, -5.0, 5.0);
    const auto parameter = random_vector<float>(size, 2);
    const auto exp_avg = random_vector<float>(size, 3);
    const auto exp_avg_sq = random_vector<float>(size, 4, 1e-3, 1.0);
    const auto expected = copy_of(parameter);
    const auto exp_avg_expected = copy_of(exp_avg);
    const auto exp_avg_sq_expected = copy_of(exp_avg_sq);
    const Vector<bf16> copy("copy", size);
    for (const std::int64_t step : {1, 2, 1000}) {
      adamw(Execution(), options_of_step(step), gradient, parameter, exp_avg, exp_avg_sq, copy);
      reference::adamw(options_of_step(step), gradient, expected, exp_avg_expected,
                       exp_avg_sq_expected);
    }
    CHECK(distance(parameter, expected) <= tolerance<float>());
    CHECK(num_unlike(copy, parameter) == 0);
    CHECK(distance(exp_avg, exp_avg_expected) <= tolerance<float>());
    CHECK(distance(exp_avg_sq, exp_avg_sq_expected) <= tolerance<float>());
    sgd(Execution(), 0.3, 0.01, 0.7, gradient, parameter, copy);
    CHECK(num_unlike(copy, parameter) == 0);
    reference::sgd(0.3, 0.01, 0.7, gradient, expected);
    CHECK(distance(parameter, expected) <= tolerance<float>());
  }
}

// As a factor of 1 - 1e-6 in f32 the decay would be 1.3 per cent too strong on every element.
TEST_CASE("A small weight decay acts at its own strength") {
  AdamwStep options;
  options.learning_rate = 1e-4;
  options.weight_decay = 0.01;
  const auto parameter = random_vector<float>(20000, 5, 0.5, 1.0);
  const auto before = copy_of(parameter);
  const Vector<float> gradient("gradient", 20000), exp_avg("m", 20000), exp_avg_sq("v", 20000);
  adamw(Execution(), options, gradient, parameter, exp_avg, exp_avg_sq, Vector<float>());
  double decay = 0.0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    decay += (static_cast<double>(before(i)) - parameter(i)) / before(i) / 20000.0;
  }
  CHECK(decay == Approx(1e-6).epsilon(2e-3).margin(0.0));
}
