// SPDX-License-Identifier: Apache-2.0
// Clamped SwiGLU as plain loops in f64: what the tests hold the Kokkos version to. Host memory.
#include <algorithm>
#include <cmath>

#include "kernel/swiglu.hpp"

namespace tessera::kernel::reference {

template <class T>
void clamped_swiglu_forward(ClampedSwiglu options, Vector<const std::int32_t> row_expert,
                            Matrix<const T> bias, Matrix<float> hidden, Matrix<T> activated) {
  const double limit = options.limit;
  for (std::size_t r = 0; r < hidden.extent(0); ++r) {
    for (std::size_t c = 0; c < hidden.extent(1) && bias.size() > 0; ++c) {
      hidden(r, c) += static_cast<float>(bias(row_expert(r), c));
    }
    for (std::size_t i = 0; i < activated.extent(1); ++i) {
      const double gate = std::min<double>(hidden(r, 2 * i), limit);
      const double up = std::clamp<double>(hidden(r, 2 * i + 1), -limit, limit);
      const double glu = gate / (1.0 + std::exp(-options.alpha * gate));
      activated(r, i) = T(static_cast<float>((up + 1.0) * glu));
    }
  }
}

template <class T>
void clamped_swiglu_backward(ClampedSwiglu options, Matrix<const float> hidden,
                             Matrix<const float> dactivated, Matrix<T> dhidden) {
  const double limit = options.limit;
  for (std::size_t r = 0; r < hidden.extent(0); ++r) {
    for (std::size_t i = 0; i < dactivated.extent(1); ++i) {
      const double h_gate = hidden(r, 2 * i);
      const double h_up = hidden(r, 2 * i + 1);
      const double gate = std::min(h_gate, limit);
      const double up = std::clamp(h_up, -limit, limit);
      const double s = 1.0 / (1.0 + std::exp(-options.alpha * gate));
      const double slope = s + options.alpha * gate * s * (1.0 - s);
      const double da = dactivated(r, i);
      const double dgate = h_gate <= limit ? da * (up + 1.0) * slope : 0.0;
      const double dup = std::abs(h_up) <= limit ? da * gate * s : 0.0;
      dhidden(r, 2 * i) = T(static_cast<float>(dgate));
      dhidden(r, 2 * i + 1) = T(static_cast<float>(dup));
    }
  }
}

#define TESSERA_INSTANTIATE(T)                                                        \
  template void clamped_swiglu_forward<T>(ClampedSwiglu, Vector<const std::int32_t>,  \
                                          Matrix<const T>, Matrix<float>, Matrix<T>); \
  template void clamped_swiglu_backward<T>(ClampedSwiglu, Matrix<const float>,        \
                                           Matrix<const float>, Matrix<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel::reference
