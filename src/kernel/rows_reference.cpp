// SPDX-License-Identifier: Apache-2.0
// Row operations as plain loops with f64 sums: what the tests hold the Kokkos version to. Host
// memory.
#include <algorithm>
#include <cmath>

#include "kernel/rows.hpp"

namespace tessera::kernel::reference {

template <class T>
void add_row_bias(Vector<const std::int32_t> row_expert, Matrix<const T> bias, Matrix<float> x) {
  for (std::size_t r = 0; r < x.extent(0); ++r) {
    for (std::size_t c = 0; c < x.extent(1) && bias.size() > 0; ++c) {
      x(r, c) += static_cast<float>(bias(row_expert(r), c));
    }
  }
}

template <class T>
void add_column_sums(Matrix<const T> x, Vector<float> sum) {
  for (std::size_t c = 0; c < x.extent(1); ++c) {
    double total = sum(c);
    for (std::size_t r = 0; r < x.extent(0); ++r) total += static_cast<float>(x(r, c));
    sum(c) = static_cast<float>(total);
  }
}

template <class TS, class TD>
void gather_rows(Matrix<const TS> source, Vector<const std::int32_t> index,
                 Matrix<TD> destination) {
  for (std::size_t r = 0; r < destination.extent(0); ++r) {
    for (std::size_t c = 0; c < destination.extent(1); ++c) {
      destination(r, c) = TD(static_cast<float>(source(index(r), c)));
    }
  }
}

template <class T>
void scatter_rows(Matrix<const T> source, Vector<const std::int32_t> index, Matrix<T> destination) {
  for (std::size_t r = 0; r < source.extent(0); ++r) {
    for (std::size_t c = 0; c < source.extent(1); ++c) destination(index(r), c) = source(r, c);
  }
}

template <class T>
void gather_rows_within(Matrix<const T> source, std::int64_t first,
                        Vector<const std::int32_t> index, Matrix<float> destination) {
  const std::int64_t end = first + static_cast<std::int64_t>(source.extent(0));
  for (std::size_t r = 0; r < destination.extent(0); ++r) {
    if (index(r) < first || index(r) >= end) continue;
    for (std::size_t c = 0; c < destination.extent(1); ++c) {
      destination(r, c) = static_cast<float>(source(index(r) - first, c));
    }
  }
}

void scatter_add_rows(Matrix<const float> source, Vector<const std::int32_t> index,
                      std::int32_t skipped_index, std::int64_t first, Matrix<float> destination) {
  const std::int64_t end = first + static_cast<std::int64_t>(destination.extent(0));
  for (std::size_t r = 0; r < source.extent(0); ++r) {
    if (index(r) == skipped_index || index(r) < first || index(r) >= end) continue;
    for (std::size_t c = 0; c < source.extent(1); ++c) {
      destination(index(r) - first, c) += source(r, c);
    }
  }
}

void clamp(float limit, Matrix<const float> x, Matrix<float> y) {
  for (std::size_t r = 0; r < x.extent(0); ++r) {
    for (std::size_t c = 0; c < x.extent(1); ++c) y(r, c) = std::clamp(x(r, c), -limit, limit);
  }
}

void clamp_backward(float limit, Matrix<const float> x, Matrix<float> dx) {
  for (std::size_t r = 0; r < x.extent(0); ++r) {
    for (std::size_t c = 0; c < x.extent(1); ++c) {
      if (std::abs(x(r, c)) > limit) dx(r, c) = 0.0f;
    }
  }
}

#define TESSERA_INSTANTIATE(T)                                                                     \
  template void add_row_bias<T>(Vector<const std::int32_t>, Matrix<const T>, Matrix<float>);       \
  template void add_column_sums<T>(Matrix<const T>, Vector<float>);                                \
  template void gather_rows<T, float>(Matrix<const T>, Vector<const std::int32_t>, Matrix<float>); \
  template void gather_rows<T, bf16>(Matrix<const T>, Vector<const std::int32_t>, Matrix<bf16>);   \
  template void gather_rows_within<T>(Matrix<const T>, std::int64_t, Vector<const std::int32_t>,   \
                                      Matrix<float>);                                              \
  template void scatter_rows<T>(Matrix<const T>, Vector<const std::int32_t>, Matrix<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel::reference
