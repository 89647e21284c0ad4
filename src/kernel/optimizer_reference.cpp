// SPDX-License-Identifier: Apache-2.0
// AdamW and SGD as plain loops in f64, in the order of torch's single-tensor code: what the tests
// hold the Kokkos version to. Host memory.
#include <cmath>

#include "kernel/optimizer.hpp"

namespace tessera::kernel::reference {

void adamw(const AdamwStep& step, Vector<const float> gradient, Vector<float> parameter,
           Vector<float> exp_avg, Vector<float> exp_avg_sq) {
  const double correction1 = 1.0 - std::pow(step.beta1, static_cast<double>(step.step));
  const double correction2 = 1.0 - std::pow(step.beta2, static_cast<double>(step.step));
  for (std::size_t i = 0; i < parameter.extent(0); ++i) {
    const double g = step.gradient_scale * gradient(i);
    double p = parameter(i);
    p *= 1.0 - step.learning_rate * step.weight_decay;
    const double m = exp_avg(i) + (g - exp_avg(i)) * (1.0 - step.beta1);
    const double v = exp_avg_sq(i) * step.beta2 + (1.0 - step.beta2) * g * g;
    const double denominator = std::sqrt(v) / std::sqrt(correction2) + step.epsilon;
    p -= step.learning_rate / correction1 * m / denominator;
    parameter(i) = static_cast<float>(p);
    exp_avg(i) = static_cast<float>(m);
    exp_avg_sq(i) = static_cast<float>(v);
  }
}

void sgd(double learning_rate, double weight_decay, double gradient_scale,
         Vector<const float> gradient, Vector<float> parameter) {
  for (std::size_t i = 0; i < parameter.extent(0); ++i) {
    const double g = gradient_scale * gradient(i) + weight_decay * parameter(i);
    parameter(i) = static_cast<float>(parameter(i) - learning_rate * g);
  }
}

}  // namespace tessera::kernel::reference
