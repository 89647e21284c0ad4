// SPDX-License-Identifier: Apache-2.0
// What the tests of products share: matrices amid NaN, and a distance between results.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernel/gemm.hpp"
#include "rows_data.hpp"

namespace tessera::kernel::test {

/// std::vector in the kernels' memory.
template <class T>
struct Allocator {
  using value_type = T;
  T* allocate(std::size_t size) {
    return static_cast<T*>(Kokkos::kokkos_malloc<Memory>(size * sizeof(T)));
  }
  void deallocate(T* data, std::size_t) { Kokkos::kokkos_free<Memory>(data); }
  friend bool operator==(const Allocator&, const Allocator&) { return true; }
};
template <class T>
using Array = std::vector<T, Allocator<T>>;

struct Case {
  std::int64_t batch, m, n, k;
  std::int64_t padding = 0;        ///< columns beyond each row
  std::int64_t batch_padding = 0;  ///< elements beyond each matrix
};

/// `batch` matrices with padding that no product may touch: NaN, which would show.
template <class T>
struct Matrices {
  Array<T> storage;
  Operand<T> first;
  std::int64_t batch_stride;

  Matrices(const Case& size, std::int64_t rows, std::int64_t cols, bool transposed,
           std::uint32_t seed)
      : batch_stride(rows * (cols + size.padding) + size.batch_padding) {
    const auto values = random_vector<T>(size.batch * rows * cols, seed);
    storage.assign(size.batch * batch_stride + 1, T(NAN));
    first = {storage.data(), rows, cols, cols + size.padding, transposed};
    std::size_t next = 0;
    for (std::int64_t i = 0; i < size.batch; ++i) {
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t col = 0; col < cols; ++col) {
          storage[i * batch_stride + row * first.stride + col] = values(next++);
        }
      }
    }
  }

  Operand<T> matrix(std::int64_t i) {
    return {storage.data() + i * batch_stride, first.rows, first.cols, first.stride,
            first.transposed};
  }
};

template <class T>
Operand<const T> input(const Operand<T>& x) {
  return {x.data, x.rows, x.cols, x.stride, x.transposed};
}

template <class T>
double root_mean_square_of_numbers(const Array<T>& storage) {
  double sum = 0.0;
  double count = 1e-30;
  for (const T value : storage) {
    const double number = static_cast<float>(value);
    if (std::isnan(number)) continue;
    sum += number * number;
    count += 1.0;
  }
  return std::sqrt(sum / count);
}

/// Largest error relative to the typical element; infinity where NaN is on one side only.
template <class T>
double largest_error(const Array<T>& actual, const Array<T>& expected) {
  const double typical = root_mean_square_of_numbers(expected);
  double largest = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double a = static_cast<float>(actual[i]);
    const double b = static_cast<float>(expected[i]);
    if (std::isnan(a) != std::isnan(b)) return INFINITY;
    if (a != b && !std::isnan(a)) largest = std::fmax(largest, std::abs(a - b) / typical);
  }
  return largest;
}

}  // namespace tessera::kernel::test
