// SPDX-License-Identifier: Apache-2.0
// Operations on rows: bias, sums over rows, gathering and combining by index, conversion. The row
// movements of dispatch and combine and of the embedding are made of these.
#pragma once

#include <type_traits>

#include "kernel/view.hpp"

namespace tessera::kernel {

/// destination[i] = TD(source[i]). local.
template <class TS, class TD>
void convert(const Execution& execution, Vector<const TS> source, Vector<TD> destination);

/// x as an operand of products in T: rounded copy, or x itself where T is float. local.
template <class T>
Matrix<T> as_type(const Execution& execution, const Matrix<float>& x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    const auto narrow = new_matrix<T>("narrowed", x.extent(0), x.extent(1));
    convert<float, T>(execution, Vector<float>(x.data(), x.size()),
                      Vector<T>(narrow.data(), narrow.size()));
    return narrow;
  }
}

/// destination[i] += source[i], f32. local.
void add(const Execution& execution, Vector<const float> source, Vector<float> destination);

/// x[r, :] += bias[row_expert[r], :]. x [N, C] f32, bias [E_l, C] T, row_expert [N] i32. local.
template <class T>
void add_row_bias(const Execution& execution, Vector<const std::int32_t> row_expert,
                  Matrix<const T> bias, Matrix<float> x);

/// x[r, :] += bias[:] for f32 x and T bias. local.
template <class T>
void add_bias(const Execution& execution, Vector<const T> bias, Matrix<float> x);

/// sum[c] += sum over rows r of x[r, c], f32 sums in a fixed order. x [N, C] T, sum [C] f32 or
/// empty (a projection without bias). local.
template <class T>
void add_column_sums(const Execution& execution, Matrix<const T> x, Vector<float> sum);

/// destination[r, :] = source[index[r], :]. index [N] i32; source rows T. local.
template <class TS, class TD>
void gather_rows(const Execution& execution, Matrix<const TS> source,
                 Vector<const std::int32_t> index, Matrix<TD> destination);

/// destination[r, :] = source[index[r] - first, :] where the source has that row; other rows stay.
/// index [N] i32; source [R, C] T: rows [first, first + R) of a longer matrix. local.
template <class T>
void gather_rows_within(const Execution& execution, Matrix<const T> source, std::int64_t first,
                        Vector<const std::int32_t> index, Matrix<float> destination);

/// destination[index[r], :] = source[r, :]; index holds each row at most once. local.
template <class T>
void scatter_rows(const Execution& execution, Matrix<const T> source,
                  Vector<const std::int32_t> index, Matrix<T> destination);

/// destination[index[r] - first, :] += source[r, :] where the destination has that row and it is
/// not the skipped one; f32, index with repetitions (embedding gradient). destination [R, C]: rows
/// [first, first + R) of a longer matrix. local.
void scatter_add_rows(const Execution& execution, Matrix<const float> source,
                      Vector<const std::int32_t> index, std::int32_t skipped_index,
                      std::int64_t first, Matrix<float> destination);

/// y = x held to [-limit, limit], f32; a NaN passes. y may be x. local.
void clamp(const Execution& execution, float limit, Matrix<const float> x, Matrix<float> y);
/// dx = 0 where |x| > limit, x the input of clamp; other elements of dx stay. local.
void clamp_backward(const Execution& execution, float limit, Matrix<const float> x,
                    Matrix<float> dx);

/// Sum of squares in f64; NaN and infinity pass through. local.
double sum_of_squares(const Execution& execution, Vector<const float> x);

namespace reference {
template <class T>
void add_row_bias(Vector<const std::int32_t> row_expert, Matrix<const T> bias, Matrix<float> x);
template <class T>
void add_column_sums(Matrix<const T> x, Vector<float> sum);
template <class TS, class TD>
void gather_rows(Matrix<const TS> source, Vector<const std::int32_t> index, Matrix<TD> destination);
template <class T>
void gather_rows_within(Matrix<const T> source, std::int64_t first,
                        Vector<const std::int32_t> index, Matrix<float> destination);
template <class T>
void scatter_rows(Matrix<const T> source, Vector<const std::int32_t> index, Matrix<T> destination);
void scatter_add_rows(Matrix<const float> source, Vector<const std::int32_t> index,
                      std::int32_t skipped_index, std::int64_t first, Matrix<float> destination);
void clamp(float limit, Matrix<const float> x, Matrix<float> y);
void clamp_backward(float limit, Matrix<const float> x, Matrix<float> dx);
}  // namespace reference

}  // namespace tessera::kernel
