// SPDX-License-Identifier: Apache-2.0
// SwiGLU, plain and clamped, forward and backward with Kokkos, one element of the activation at a
// time.
#include "kernel/swiglu.hpp"

#include "base/contract.hpp"
#include "kernel/exponential.hpp"
#include "kernel/rows.hpp"
#include "kernel/rows_loop.hpp"

namespace tessera::kernel {

namespace {

// Ternaries, not fmin and fmax: a NaN must pass through.
KOKKOS_INLINE_FUNCTION float at_most(float value, float limit) {
  return value > limit ? limit : value;
}
KOKKOS_INLINE_FUNCTION float at_least(float value, float limit) {
  return value < limit ? limit : value;
}

template <class T>
void plain_forward(const Execution& execution, Matrix<const float> hidden, Matrix<T> activated) {
  const std::int64_t inner = activated.extent(1);
  for_each_element(
      "tessera::swiglu_forward", execution, activated.extent(0), inner,
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t i) {
        const float gate = hidden(r, i);
        activated(r, i) = static_cast<T>(gate * sigmoid(gate).value * hidden(r, inner + i));
      });
}

template <class T>
void plain_backward(const Execution& execution, Matrix<const float> hidden,
                    Matrix<const float> dactivated, Matrix<T> dhidden, Matrix<T> activated) {
  const std::int64_t inner = dactivated.extent(1);
  const bool activates = activated.size() > 0;
  for_each_element(
      "tessera::swiglu_backward", execution, dactivated.extent(0), inner,
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t i) {
        const float gate = hidden(r, i);
        const Sigmoid s = sigmoid(gate);
        const float da = dactivated(r, i);
        const float slope = s.value * (1.0f + gate * s.complement);
        dhidden(r, i) = static_cast<T>(da * hidden(r, inner + i) * slope);
        dhidden(r, inner + i) = static_cast<T>(da * gate * s.value);
        if (activates) activated(r, i) = static_cast<T>(gate * s.value * hidden(r, inner + i));
      });
}

template <class T>
void clamped_forward(const Execution& execution, Swiglu options, Matrix<const float> hidden,
                     Matrix<T> activated) {
  const float limit = options.limit;
  const float alpha = options.alpha;
  for_each_element(
      "tessera::clamped_swiglu_forward", execution, activated.extent(0), activated.extent(1),
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t i) {
        const float gate = at_most(hidden(r, 2 * i), limit);
        const float up = at_least(at_most(hidden(r, 2 * i + 1), limit), -limit);
        const float glu = gate * sigmoid(alpha * gate).value;
        activated(r, i) = static_cast<T>((up + 1.0f) * glu);
      });
}

template <class T>
void clamped_backward(const Execution& execution, Swiglu options, Matrix<const float> hidden,
                      Matrix<const float> dactivated, Matrix<T> dhidden, Matrix<T> activated) {
  const float limit = options.limit;
  const float alpha = options.alpha;
  const bool activates = activated.size() > 0;
  for_each_element(
      "tessera::clamped_swiglu_backward", execution, dactivated.extent(0), dactivated.extent(1),
      KOKKOS_LAMBDA(const std::int64_t r, const std::int64_t i) {
        const float h_gate = hidden(r, 2 * i);
        const float h_up = hidden(r, 2 * i + 1);
        const float gate = at_most(h_gate, limit);
        const float up = at_least(at_most(h_up, limit), -limit);
        const Sigmoid s = sigmoid(alpha * gate);
        const float da = dactivated(r, i);
        const float dgate = da * (up + 1.0f) * s.value * (1.0f + alpha * gate * s.complement);
        const float dup = da * gate * s.value;
        dhidden(r, 2 * i) = static_cast<T>(h_gate > limit ? 0.0f : dgate);
        dhidden(r, 2 * i + 1) = static_cast<T>(h_up > limit || h_up < -limit ? 0.0f : dup);
        if (activates) activated(r, i) = static_cast<T>((up + 1.0f) * (gate * s.value));
      });
}

}  // namespace

template <class T>
void swiglu_forward(const Execution& execution, Swiglu options,
                    Vector<const std::int32_t> row_expert, Matrix<const T> bias,
                    Matrix<float> hidden, Matrix<T> activated) {
  if (hidden.size() == 0) return;
  TESSERA_EXPECT(hidden.extent(0) == activated.extent(0) &&
                 hidden.extent(1) == 2 * activated.extent(1));
  if (bias.size() > 0) add_row_bias<T>(execution, row_expert, bias, hidden);
  if (options.kind == Activation::swiglu) {
    plain_forward<T>(execution, hidden, activated);
  } else {
    clamped_forward<T>(execution, options, hidden, activated);
  }
}

template <class T>
void swiglu_backward(const Execution& execution, Swiglu options, Matrix<const float> hidden,
                     Matrix<const float> dactivated, Matrix<T> dhidden, Matrix<T> activated) {
  if (hidden.size() == 0) return;
  TESSERA_EXPECT(hidden.extent(0) == dactivated.extent(0) &&
                 hidden.extent(1) == 2 * dactivated.extent(1));
  TESSERA_EXPECT(dhidden.extent(0) == hidden.extent(0) && dhidden.extent(1) == hidden.extent(1));
  TESSERA_EXPECT(activated.size() == 0 || activated.size() == dactivated.size());
  if (options.kind == Activation::swiglu) {
    plain_backward<T>(execution, hidden, dactivated, dhidden, activated);
  } else {
    clamped_backward<T>(execution, options, hidden, dactivated, dhidden, activated);
  }
}

#define TESSERA_INSTANTIATE(T)                                                          \
  template void swiglu_forward<T>(const Execution&, Swiglu, Vector<const std::int32_t>, \
                                  Matrix<const T>, Matrix<float>, Matrix<T>);           \
  template void swiglu_backward<T>(const Execution&, Swiglu, Matrix<const float>,       \
                                   Matrix<const float>, Matrix<T>, Matrix<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
