// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation of rows (arXiv:1910.07467, eq. 4), all arithmetic in f32.
#pragma once

#include "kernel/view.hpp"

namespace tessera::kernel {

/// y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + epsilon) per row. local.
/// x [T, H] f32; weight [H] T; y [T, H] TY in {float, bf16}; rstd [T] f32. y may not be x.
template <class T, class TY>
void rms_norm_forward(const Execution& execution, Matrix<const float> x, Vector<const T> weight,
                      float epsilon, Matrix<TY> y, Vector<float> rstd);

/// The same, also rounded to T unless `rounded` is empty. y [T, H] f32, rounded [T, H] T. local.
template <class T>
void rms_norm_forward(const Execution& execution, Matrix<const float> x, Vector<const T> weight,
                      float epsilon, Matrix<float> y, Matrix<T> rounded, Vector<float> rstd);

/// dx += r (w dy) - x r^3 / H * sum(w dy x);  dweight += sum over rows of dy x r. local.
/// dy, x, dx [T, H] f32; weight [H] T; rstd [T]; dweight [H] f32 (a fixed summation order).
template <class T>
void rms_norm_backward(const Execution& execution, Matrix<const float> dy, Matrix<const float> x,
                       Vector<const T> weight, Vector<const float> rstd, Matrix<float> dx,
                       Vector<float> dweight);

namespace reference {
template <class T, class TY>
void rms_norm_forward(Matrix<const float> x, Vector<const T> weight, float epsilon, Matrix<TY> y,
                      Vector<float> rstd);
template <class T>
void rms_norm_backward(Matrix<const float> dy, Matrix<const float> x, Vector<const T> weight,
                       Vector<const float> rstd, Matrix<float> dx, Vector<float> dweight);
}  // namespace reference

}  // namespace tessera::kernel
