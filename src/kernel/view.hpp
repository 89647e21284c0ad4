// SPDX-License-Identifier: Apache-2.0
// Arrays for all kernels, and how to get one: from this thread's pool, or newly allocated.
#pragma once

#include "kernel/allocate.hpp"
#include "kernel/view_pool.hpp"
#include "kernel/view_types.hpp"

namespace tessera::kernel {

/// Each array of a checked run has pages of its own.
inline ViewPool* usable_pool() { return device_memory_is_checked() ? nullptr : current_pool(); }

/// Without initialisation, from this thread's pool (see PoolScope) or, where there is none (or in a
/// run that checks device memory), newly allocated; without elements: null. local.
template <class T>
Matrix<T> new_matrix(const char* label, std::int64_t rows, std::int64_t cols) {
  if (rows == 0 || cols == 0) return Matrix<T>(nullptr, rows, cols);
  if (ViewPool* pool = usable_pool()) return pool->matrix<T>(label, rows, cols);
  return allocate<Matrix<T>>(label, rows, cols);
}
template <class T>
Vector<T> new_vector(const char* label, std::int64_t size) {
  if (size == 0) return Vector<T>(nullptr, 0);
  if (ViewPool* pool = usable_pool()) return pool->vector<T>(label, size);
  return allocate<Vector<T>>(label, size);
}

/// The same filled with zeros, in the order of `execution`. local.
template <class T>
Matrix<T> new_zero_matrix(const Execution& execution, const char* label, std::int64_t rows,
                          std::int64_t cols) {
  const auto matrix = new_matrix<T>(label, rows, cols);
  if (matrix.size() > 0) Kokkos::deep_copy(execution, matrix, T(0));
  return matrix;
}
template <class T>
Vector<T> new_zero_vector(const Execution& execution, const char* label, std::int64_t size) {
  const auto vector = new_vector<T>(label, size);
  if (size > 0) Kokkos::deep_copy(execution, vector, T(0));
  return vector;
}

}  // namespace tessera::kernel
