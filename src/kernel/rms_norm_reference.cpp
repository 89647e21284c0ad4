// SPDX-License-Identifier: Apache-2.0
// RMSNorm as plain loops with f64 sums: what the tests hold the Kokkos version to. Host memory.
#include <cmath>

#include "kernel/rms_norm.hpp"

namespace tessera::kernel::reference {

template <class T, class TY>
void rms_norm_forward(Matrix<const float> x, Vector<const T> weight, float epsilon, Matrix<TY> y,
                      Vector<float> rstd) {
  for (std::size_t t = 0; t < x.extent(0); ++t) {
    double squares = 0.0;
    for (std::size_t c = 0; c < x.extent(1); ++c) {
      squares += static_cast<double>(x(t, c)) * static_cast<double>(x(t, c));
    }
    const double r = 1.0 / std::sqrt(squares / static_cast<double>(x.extent(1)) + epsilon);
    for (std::size_t c = 0; c < x.extent(1); ++c) {
      const double scaled = static_cast<double>(x(t, c)) * r * static_cast<float>(weight(c));
      y(t, c) = static_cast<TY>(static_cast<float>(scaled));
    }
    rstd(t) = static_cast<float>(r);
  }
}

template <class T>
void rms_norm_backward(Matrix<const float> dy, Matrix<const float> x, Vector<const T> weight,
                       Vector<const float> rstd, Matrix<float> dx, Vector<float> dweight) {
  const std::size_t columns = x.extent(1);
  for (std::size_t t = 0; t < x.extent(0); ++t) {
    const double r = rstd(t);
    double dot = 0.0;
    for (std::size_t c = 0; c < columns; ++c) {
      dot += static_cast<double>(static_cast<float>(weight(c))) * dy(t, c) * x(t, c);
    }
    for (std::size_t c = 0; c < columns; ++c) {
      const double own = r * static_cast<float>(weight(c)) * dy(t, c);
      const double shared = x(t, c) * r * r * r * dot / static_cast<double>(columns);
      dx(t, c) = static_cast<float>(dx(t, c) + own - shared);
    }
  }
  for (std::size_t c = 0; c < columns; ++c) {
    double sum = dweight(c);
    for (std::size_t t = 0; t < x.extent(0); ++t) {
      sum += static_cast<double>(dy(t, c)) * x(t, c) * rstd(t);
    }
    dweight(c) = static_cast<float>(sum);
  }
}

template void rms_norm_forward<float, float>(Matrix<const float>, Vector<const float>, float,
                                             Matrix<float>, Vector<float>);
template void rms_norm_forward<float, bf16>(Matrix<const float>, Vector<const float>, float,
                                            Matrix<bf16>, Vector<float>);
template void rms_norm_forward<bf16, float>(Matrix<const float>, Vector<const bf16>, float,
                                            Matrix<float>, Vector<float>);
template void rms_norm_forward<bf16, bf16>(Matrix<const float>, Vector<const bf16>, float,
                                           Matrix<bf16>, Vector<float>);
template void rms_norm_backward<float>(Matrix<const float>, Matrix<const float>,
                                       Vector<const float>, Vector<const float>, Matrix<float>,
                                       Vector<float>);
template void rms_norm_backward<bf16>(Matrix<const float>, Matrix<const float>, Vector<const bf16>,
                                      Vector<const float>, Matrix<float>, Vector<float>);

}  // namespace tessera::kernel::reference
