// SPDX-License-Identifier: Apache-2.0
// What the tests of row kernels share: reproducible arrays, a distance between arrays, and central
// differences.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <type_traits>
#include <vector>

#include "kernel/view.hpp"

namespace tessera::kernel::test {

template <class View>
View filled(View view, std::uint32_t seed, double low = -1.0, double high = 1.0) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(low, high);
  using T = typename View::non_const_value_type;
  for (std::size_t i = 0; i < view.size(); ++i) {
    view.data()[i] = static_cast<T>(static_cast<float>(uniform(generator)));
  }
  return view;
}

template <class T>
Matrix<T> random_matrix(std::int64_t rows, std::int64_t columns, std::uint32_t seed,
                        double low = -1.0, double high = 1.0) {
  return filled(Matrix<T>("random_matrix", rows, columns), seed, low, high);
}

template <class T>
Vector<T> random_vector(std::int64_t size, std::uint32_t seed, double low = -1.0,
                        double high = 1.0) {
  return filled(Vector<T>("random_vector", size), seed, low, high);
}

/// Indices in [0, bound), with repetitions.
inline Vector<std::int32_t> random_indices(std::int64_t size, std::int32_t bound,
                                           std::uint32_t seed) {
  std::mt19937 generator(seed);
  Vector<std::int32_t> index("random_indices", size);
  for (std::int64_t i = 0; i < size; ++i) {
    index(i) = static_cast<std::int32_t>(generator() % static_cast<std::uint32_t>(bound));
  }
  return index;
}

/// A permutation of 0 .. rows * columns - 1 as a matrix.
inline Matrix<std::int32_t> random_slots(std::int64_t rows, std::int64_t columns,
                                         std::uint32_t seed) {
  std::mt19937 generator(seed);
  Matrix<std::int32_t> slot("random_slots", rows, columns);
  const std::int64_t size = rows * columns;
  for (std::int64_t i = 0; i < size; ++i) slot.data()[i] = static_cast<std::int32_t>(i);
  for (std::int64_t i = size; i > 1; --i) {
    std::swap(slot.data()[i - 1], slot.data()[generator() % static_cast<std::uint32_t>(i)]);
  }
  return slot;
}

template <class View>
View copy_of(const View& view) {
  View copy("copy", view.layout());
  Kokkos::deep_copy(copy, view);
  return copy;
}

template <class View>
double root_mean_square(const View& view) {
  double sum = 0.0;
  for (std::size_t i = 0; i < view.size(); ++i) {
    const double value = static_cast<double>(view.data()[i]);
    sum += value * value;
  }
  return std::sqrt(sum / static_cast<double>(view.size() > 0 ? view.size() : 1));
}

/// Largest |a - b| / (|b| + rms(b)); infinity where one of the two is NaN and the other is not.
template <class View, class Expected>
double distance(const View& a, const Expected& b) {
  if (a.size() != b.size()) return INFINITY;
  const double typical = root_mean_square(b);
  double largest = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double expected = static_cast<double>(b.data()[i]);
    const double error = std::abs(static_cast<double>(a.data()[i]) - expected);
    if (error == 0.0 || (std::isnan(expected) && std::isnan(error))) continue;
    const double relative = error / (std::abs(expected) + typical);
    largest = std::isnan(relative) ? INFINITY : std::fmax(largest, relative);
  }
  return largest;
}

/// Room for differently ordered f32 sums, and for one rounding step of a bf16 result.
template <class T>
constexpr double tolerance() {
  return std::is_same_v<T, float> ? 1e-6 : 1.0 / 128;
}

/// sum of a * b in f64: a loss whose gradient with respect to a is b.
template <class View, class Weights>
double weighted_sum(const View& a, const Weights& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a.data()[i]) * static_cast<double>(b.data()[i]);
  }
  return sum;
}

/// Central differences of `loss` with respect to each element of `x`, which is restored.
template <class View>
View central_differences(View x, const std::function<double()>& loss, float step = 1e-2f) {
  View gradient("central_differences", x.layout());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float middle = x.data()[i];
    x.data()[i] = middle + step;
    const double above = x.data()[i];
    const double loss_above = loss();
    x.data()[i] = middle - step;
    const double below = x.data()[i];
    const double loss_below = loss();
    x.data()[i] = middle;
    gradient.data()[i] = static_cast<float>((loss_above - loss_below) / (above - below));
  }
  return gradient;
}

}  // namespace tessera::kernel::test
