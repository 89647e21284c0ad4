// SPDX-License-Identifier: Apache-2.0
// Row movements of dispatch and combine on rows that lie anywhere, each at its own address: in this
// rank's matrices or in those of a rank of the same node. Every row is read or written where it
// lies, so it is moved once.
#pragma once

#include "kernel/view.hpp"

namespace tessera::kernel {

/// Where a row of H consecutive elements begins. T may be const.
template <class T>
struct RowAddress {
  T* first = nullptr;
};
template <class T>
using RowAddresses = Vector<RowAddress<T>>;

/// The addresses of all rows of a matrix, in order. local.
template <class T>
RowAddresses<T> addresses_of(const Execution& execution, Matrix<T> rows);

/// destination[r, :] = the row at source[r]. destination [N, H] T, source [N]. local.
template <class T>
void gather_rows(const Execution& execution, RowAddresses<const T> source, Matrix<T> destination);

/// y[t, :] = x[t, :] + sum over k of weight[t, k] * row, with row the one at rows[slot[t, k]],
/// added in the order of k; kept[slot[t, k], :] = row unless kept is empty. x, y [T, H] f32 (y may
/// be x), rows [N], slot [T, K] i32, weight [T, K] f32, kept [N, H] T. local.
template <class T>
void combine_rows(const Execution& execution, RowAddresses<const T> rows,
                  Matrix<const std::int32_t> slot, Matrix<const float> weight,
                  Matrix<const float> x, Matrix<float> y, Matrix<T> kept);

/// The row at drows[slot[t, k]] becomes weight[t, k] * dy[t, :]; dweight[t, k] is overwritten with
/// <dy[t, :], rows[slot[t, k], :]>. dy [T, H] f32, rows [N, H] T, drows [N]. local.
template <class T>
void combine_rows_backward(const Execution& execution, Matrix<const float> dy, Matrix<const T> rows,
                           Matrix<const std::int32_t> slot, Matrix<const float> weight,
                           RowAddresses<T> drows, Matrix<float> dweight);

/// dx[t, :] += sum over k of the row at rows[slot[t, k]], in the order of k: the way back of
/// dispatch. dx [T, H] f32. local.
template <class T>
void sum_rows(const Execution& execution, RowAddresses<const T> rows,
              Matrix<const std::int32_t> slot, Matrix<float> dx);

/// The same on rows of a matrix.
namespace reference {
template <class T>
void combine_rows(Matrix<const T> rows, Matrix<const std::int32_t> slot, Matrix<const float> weight,
                  Matrix<float> y);
template <class T>
void combine_rows_backward(Matrix<const float> dy, Matrix<const T> rows,
                           Matrix<const std::int32_t> slot, Matrix<const float> weight,
                           Matrix<T> drows, Matrix<float> dweight);
template <class T>
void sum_rows(Matrix<const T> rows, Matrix<const std::int32_t> slot, Matrix<float> dx);
}  // namespace reference

}  // namespace tessera::kernel
