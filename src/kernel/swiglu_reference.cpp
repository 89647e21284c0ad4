// SPDX-License-Identifier: Apache-2.0
// SwiGLU, plain and clamped, as plain loops in f64: what the tests hold the Kokkos version to. Host
// memory.
#include <algorithm>
#include <cmath>

#include "kernel/swiglu.hpp"

namespace tessera::kernel::reference {

namespace {

/// a(gate, up), its derivatives with respect to the two, before any clamp.
struct Glu {
  double value;
  double dgate;
  double dup;
};

Glu plain(double gate, double up) {
  const double s = 1.0 / (1.0 + std::exp(-gate));
  return {gate * s * up, up * (s + gate * s * (1.0 - s)), gate * s};
}

Glu clamped(Swiglu options, double h_gate, double h_up) {
  const double limit = options.limit;
  const double gate = std::min(h_gate, limit);
  const double up = std::clamp(h_up, -limit, limit);
  const double s = 1.0 / (1.0 + std::exp(-options.alpha * gate));
  const double slope = s + options.alpha * gate * s * (1.0 - s);
  return {(up + 1.0) * gate * s, h_gate <= limit ? (up + 1.0) * slope : 0.0,
          std::abs(h_up) <= limit ? gate * s : 0.0};
}

struct Columns {
  std::size_t gate;
  std::size_t up;
};

Columns columns_of(Swiglu options, std::size_t i, std::size_t inner) {
  if (options.kind == Activation::swiglu) return {i, inner + i};
  return {2 * i, 2 * i + 1};
}

Glu glu_of(Swiglu options, double gate, double up) {
  return options.kind == Activation::swiglu ? plain(gate, up) : clamped(options, gate, up);
}

}  // namespace

template <class T>
void swiglu_forward(Swiglu options, Vector<const std::int32_t> row_expert, Matrix<const T> bias,
                    Matrix<float> hidden, Matrix<T> activated) {
  for (std::size_t r = 0; r < hidden.extent(0); ++r) {
    for (std::size_t c = 0; c < hidden.extent(1) && bias.size() > 0; ++c) {
      hidden(r, c) += static_cast<float>(bias(row_expert(r), c));
    }
    for (std::size_t i = 0; i < activated.extent(1); ++i) {
      const Columns c = columns_of(options, i, activated.extent(1));
      const Glu glu = glu_of(options, hidden(r, c.gate), hidden(r, c.up));
      activated(r, i) = T(static_cast<float>(glu.value));
    }
  }
}

template <class T>
void swiglu_backward(Swiglu options, Matrix<const float> hidden, Matrix<const float> dactivated,
                     Matrix<T> dhidden) {
  for (std::size_t r = 0; r < hidden.extent(0); ++r) {
    for (std::size_t i = 0; i < dactivated.extent(1); ++i) {
      const Columns c = columns_of(options, i, dactivated.extent(1));
      const Glu glu = glu_of(options, hidden(r, c.gate), hidden(r, c.up));
      dhidden(r, c.gate) = T(static_cast<float>(dactivated(r, i) * glu.dgate));
      dhidden(r, c.up) = T(static_cast<float>(dactivated(r, i) * glu.dup));
    }
  }
}

#define TESSERA_INSTANTIATE(T)                                                         \
  template void swiglu_forward<T>(Swiglu, Vector<const std::int32_t>, Matrix<const T>, \
                                  Matrix<float>, Matrix<T>);                           \
  template void swiglu_backward<T>(Swiglu, Matrix<const float>, Matrix<const float>, Matrix<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel::reference
