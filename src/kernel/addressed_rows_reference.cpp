// SPDX-License-Identifier: Apache-2.0
// Plain-loop references of the operations on rows at addresses, in f64; their rows are a matrix.
#include "kernel/addressed_rows.hpp"

namespace tessera::kernel::reference {

template <class T>
void combine_rows(Matrix<const T> rows, Matrix<const std::int32_t> slot, Matrix<const float> weight,
                  Matrix<float> y) {
  for (std::size_t t = 0; t < y.extent(0); ++t) {
    for (std::size_t c = 0; c < y.extent(1); ++c) {
      double total = y(t, c);
      for (std::size_t k = 0; k < slot.extent(1); ++k) {
        total += static_cast<double>(weight(t, k)) * static_cast<float>(rows(slot(t, k), c));
      }
      y(t, c) = static_cast<float>(total);
    }
  }
}

template <class T>
void combine_rows_backward(Matrix<const float> dy, Matrix<const T> rows,
                           Matrix<const std::int32_t> slot, Matrix<const float> weight,
                           Matrix<T> drows, Matrix<float> dweight) {
  for (std::size_t t = 0; t < dy.extent(0); ++t) {
    for (std::size_t k = 0; k < slot.extent(1); ++k) {
      double dot = 0.0;
      for (std::size_t c = 0; c < dy.extent(1); ++c) {
        dot += static_cast<double>(dy(t, c)) * static_cast<float>(rows(slot(t, k), c));
        drows(slot(t, k), c) = T(weight(t, k) * dy(t, c));
      }
      dweight(t, k) = static_cast<float>(dot);
    }
  }
}

template <class T>
void sum_rows(Matrix<const T> rows, Matrix<const std::int32_t> slot, Matrix<float> dx) {
  for (std::size_t t = 0; t < dx.extent(0); ++t) {
    for (std::size_t c = 0; c < dx.extent(1); ++c) {
      double total = dx(t, c);
      for (std::size_t k = 0; k < slot.extent(1); ++k) {
        total += static_cast<float>(rows(slot(t, k), c));
      }
      dx(t, c) = static_cast<float>(total);
    }
  }
}

#define TESSERA_INSTANTIATE(T)                                                                    \
  template void combine_rows<T>(Matrix<const T>, Matrix<const std::int32_t>, Matrix<const float>, \
                                Matrix<float>);                                                   \
  template void combine_rows_backward<T>(Matrix<const float>, Matrix<const T>,                    \
                                         Matrix<const std::int32_t>, Matrix<const float>,         \
                                         Matrix<T>, Matrix<float>);                               \
  template void sum_rows<T>(Matrix<const T>, Matrix<const std::int32_t>, Matrix<float>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel::reference
