// SPDX-License-Identifier: Apache-2.0
// Optimizer steps on flat f32 shards, torch's formulas.
#pragma once

#include <cstdint>

#include "kernel/view.hpp"

namespace tessera::kernel {

/// AdamW with decoupled weight decay (arXiv:1711.05101, Alg. 2), as torch.optim.AdamW.
struct AdamwStep {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  std::int64_t step = 1;        ///< counted from 1, for the bias corrections
  double gradient_scale = 1.0;  ///< clipping factor, multiplied into the gradient
};

/// p *= 1 - lr wd;  m, v updated;  p -= lr / bc1 * m / (sqrt(v) / sqrt(bc2) + eps). local, one
/// pass. parameter, exp_avg, exp_avg_sq [n] f32 in place; gradient [n] f32, unchanged; copy [n] or
/// empty: the new parameter in type T. No two of them overlap.
template <class T>
void adamw(const Execution& execution, const AdamwStep& step, Vector<const float> gradient,
           Vector<float> parameter, Vector<float> exp_avg, Vector<float> exp_avg_sq,
           Vector<T> copy);

/// p -= lr (scale g + wd p), as torch.optim.SGD without momentum. copy as above. local.
template <class T>
void sgd(const Execution& execution, double learning_rate, double weight_decay,
         double gradient_scale, Vector<const float> gradient, Vector<float> parameter,
         Vector<T> copy);

namespace reference {
void adamw(const AdamwStep& step, Vector<const float> gradient, Vector<float> parameter,
           Vector<float> exp_avg, Vector<float> exp_avg_sq);
void sgd(double learning_rate, double weight_decay, double gradient_scale,
         Vector<const float> gradient, Vector<float> parameter);
}  // namespace reference

}  // namespace tessera::kernel
