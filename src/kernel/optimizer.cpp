// SPDX-License-Identifier: Apache-2.0
// AdamW and SGD with Kokkos. Scalars are formed in f64 on the host, elements are updated in f32.
#include "kernel/optimizer.hpp"

#include <cmath>

#include "base/contract.hpp"
#include "kernel/launch.hpp"

namespace tessera::kernel {
namespace {

// Within a block plain loops over pointers that do not overlap, which compilers turn into vector
// instructions.
constexpr std::int64_t block_size = elements_per_index(4096);

/// body(begin, end) over blocks of [0, size).
template <class Body>
void for_blocks(const char* label, const Execution& execution, std::int64_t size,
                const Body& body) {
  Kokkos::parallel_for(
      label, Range(execution, 0, (size + block_size - 1) / block_size),
      KOKKOS_LAMBDA(const std::int64_t block) {
        const std::int64_t begin = block * block_size;
        const std::int64_t end = begin + block_size;
        body(begin, end < size ? end : size);
      });
}

/// The step's scalars, formed in f64.
struct AdamwFactors {
  explicit AdamwFactors(const AdamwStep& step)
      : scale(static_cast<float>(step.gradient_scale)),
        beta1(static_cast<float>(step.beta1)),
        beta2(static_cast<float>(step.beta2)),
        rest1(static_cast<float>(1.0 - step.beta1)),
        rest2(static_cast<float>(1.0 - step.beta2)),
        epsilon(static_cast<float>(step.epsilon)),
        decay(static_cast<float>(step.learning_rate * step.weight_decay)) {
    const double correction1 = 1.0 - std::pow(step.beta1, static_cast<double>(step.step));
    const double correction2 = 1.0 - std::pow(step.beta2, static_cast<double>(step.step));
    rate = static_cast<float>(step.learning_rate / correction1);
    root = static_cast<float>(1.0 / std::sqrt(correction2));
  }

  float scale, beta1, beta2, rest1, rest2, epsilon;
  float decay;  // subtracted, not multiplied as 1 - lr wd, which f32 rounds to a few per cent
  float rate = 0.0f, root = 0.0f;
};

template <bool with_copy, class T>
KOKKOS_INLINE_FUNCTION void adamw_block(const AdamwFactors& f, const float* KOKKOS_RESTRICT g,
                                        float* KOKKOS_RESTRICT p, float* KOKKOS_RESTRICT m,
                                        float* KOKKOS_RESTRICT v, T* KOKKOS_RESTRICT copy,
                                        std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) {
    const float gradient = f.scale * g[i];
    m[i] = f.beta1 * m[i] + f.rest1 * gradient;
    v[i] = f.beta2 * v[i] + f.rest2 * gradient * gradient;
    p[i] -= f.decay * p[i] + f.rate * m[i] / (std::sqrt(v[i]) * f.root + f.epsilon);
    if constexpr (with_copy) copy[i] = static_cast<T>(p[i]);
  }
}

template <bool with_copy, class T>
KOKKOS_INLINE_FUNCTION void sgd_block(float rate, float decay, float scale,
                                      const float* KOKKOS_RESTRICT g, float* KOKKOS_RESTRICT p,
                                      T* KOKKOS_RESTRICT copy, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) {
    p[i] -= rate * (scale * g[i] + decay * p[i]);
    if constexpr (with_copy) copy[i] = static_cast<T>(p[i]);
  }
}

}  // namespace

template <class T>
void adamw(const Execution& execution, const AdamwStep& step, Vector<const float> gradient,
           Vector<float> parameter, Vector<float> exp_avg, Vector<float> exp_avg_sq,
           Vector<T> copy) {
  const std::int64_t size = parameter.extent(0);
  TESSERA_EXPECT(step.step >= 1);
  TESSERA_EXPECT(gradient.extent(0) == parameter.extent(0));
  TESSERA_EXPECT(exp_avg.extent(0) == parameter.extent(0));
  TESSERA_EXPECT(exp_avg_sq.extent(0) == parameter.extent(0));
  TESSERA_EXPECT(copy.extent(0) == 0 || copy.extent(0) == parameter.extent(0));
  const AdamwFactors factors(step);
  const bool with_copy = copy.extent(0) > 0;
  for_blocks(
      "tessera::adamw", execution, size,
      KOKKOS_LAMBDA(const std::int64_t begin, const std::int64_t end) {
        const float* g = gradient.data() + begin;
        float *p = parameter.data() + begin, *m = exp_avg.data() + begin;
        float* v = exp_avg_sq.data() + begin;
        if (with_copy) {
          adamw_block<true>(factors, g, p, m, v, copy.data() + begin, end - begin);
        } else {
          adamw_block<false>(factors, g, p, m, v, copy.data(), end - begin);
        }
      });
}

template <class T>
void sgd(const Execution& execution, double learning_rate, double weight_decay,
         double gradient_scale, Vector<const float> gradient, Vector<float> parameter,
         Vector<T> copy) {
  TESSERA_EXPECT(gradient.extent(0) == parameter.extent(0));
  TESSERA_EXPECT(copy.extent(0) == 0 || copy.extent(0) == parameter.extent(0));
  const float rate = static_cast<float>(learning_rate);
  const float decay = static_cast<float>(weight_decay);
  const float scale = static_cast<float>(gradient_scale);
  const bool with_copy = copy.extent(0) > 0;
  for_blocks(
      "tessera::sgd", execution, parameter.extent(0),
      KOKKOS_LAMBDA(const std::int64_t begin, const std::int64_t end) {
        const float* g = gradient.data() + begin;
        float* p = parameter.data() + begin;
        if (with_copy) {
          sgd_block<true>(rate, decay, scale, g, p, copy.data() + begin, end - begin);
        } else {
          sgd_block<false>(rate, decay, scale, g, p, copy.data(), end - begin);
        }
      });
}

#define TESSERA_INSTANTIATE(T)                                                                    \
  template void adamw(const Execution&, const AdamwStep&, Vector<const float>, Vector<float>,     \
                      Vector<float>, Vector<float>, Vector<T>);                                   \
  template void sgd(const Execution&, double, double, double, Vector<const float>, Vector<float>, \
                    Vector<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
