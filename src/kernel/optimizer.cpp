// SPDX-License-Identifier: Apache-2.0
// AdamW and SGD with Kokkos. Scalars are formed in f64 on the host, elements are updated in f32.
#include "kernel/optimizer.hpp"

#include <cmath>

#include "base/contract.hpp"

namespace tessera::kernel {

void adamw(const Execution& execution, const AdamwStep& step, Vector<const float> gradient,
           Vector<float> parameter, Vector<float> exp_avg, Vector<float> exp_avg_sq) {
  TESSERA_EXPECT(step.step >= 1);
  TESSERA_EXPECT(gradient.extent(0) == parameter.extent(0));
  TESSERA_EXPECT(exp_avg.extent(0) == parameter.extent(0));
  TESSERA_EXPECT(exp_avg_sq.extent(0) == parameter.extent(0));
  const double correction1 = 1.0 - std::pow(step.beta1, static_cast<double>(step.step));
  const double correction2 = 1.0 - std::pow(step.beta2, static_cast<double>(step.step));
  const float scale = static_cast<float>(step.gradient_scale);
  const float beta1 = static_cast<float>(step.beta1);
  const float beta2 = static_cast<float>(step.beta2);
  const float rest1 = static_cast<float>(1.0 - step.beta1);
  const float rest2 = static_cast<float>(1.0 - step.beta2);
  const float rate = static_cast<float>(step.learning_rate / correction1);
  const float root = static_cast<float>(1.0 / std::sqrt(correction2));
  const float epsilon = static_cast<float>(step.epsilon);
  // Subtracted, not multiplied as 1 - lr wd, which f32 rounds to a few per cent of a small decay.
  const float decay = static_cast<float>(step.learning_rate * step.weight_decay);
  Kokkos::parallel_for(
      "tessera::adamw", Range(execution, 0, parameter.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t i) {
        const float g = scale * gradient(i);
        const float m = beta1 * exp_avg(i) + rest1 * g;
        const float v = beta2 * exp_avg_sq(i) + rest2 * g * g;
        const float p = parameter(i);
        exp_avg(i) = m;
        exp_avg_sq(i) = v;
        parameter(i) = p - (decay * p + rate * m / (std::sqrt(v) * root + epsilon));
      });
}

void sgd(const Execution& execution, double learning_rate, double weight_decay,
         double gradient_scale, Vector<const float> gradient, Vector<float> parameter) {
  TESSERA_EXPECT(gradient.extent(0) == parameter.extent(0));
  const float rate = static_cast<float>(learning_rate);
  const float decay = static_cast<float>(weight_decay);
  const float scale = static_cast<float>(gradient_scale);
  Kokkos::parallel_for(
      "tessera::sgd", Range(execution, 0, parameter.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t i) {
        parameter(i) -= rate * (scale * gradient(i) + decay * parameter(i));
      });
}

}  // namespace tessera::kernel
