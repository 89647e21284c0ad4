// SPDX-License-Identifier: Apache-2.0
// Cross-entropy by plain loops in f64: the oracle of the kernel.
#include <algorithm>
#include <cmath>

#include "kernel/cross_entropy.hpp"

namespace tessera::kernel::reference {

template <class T>
double cross_entropy(Matrix<const float> logits, Vector<const std::int64_t> target, float scale,
                     Matrix<T> dlogits) {
  const std::size_t num_classes = logits.extent(1);
  const bool has_gradient = dlogits.size() > 0;
  double loss = 0.0;
  for (std::size_t row = 0; row < logits.extent(0); ++row) {
    const bool ignored = target(row) == ignored_label;
    double maximum = logits(row, 0), total = 0.0;
    for (std::size_t i = 0; i < num_classes; ++i) {
      maximum = std::max<double>(maximum, logits(row, i));
    }
    for (std::size_t i = 0; i < num_classes; ++i) total += std::exp(logits(row, i) - maximum);
    if (!ignored) loss += std::log(total) + maximum - logits(row, target(row));
    for (std::size_t i = 0; has_gradient && i < num_classes; ++i) {
      const double onehot = static_cast<std::int64_t>(i) == target(row) ? 1.0 : 0.0;
      const double gradient = std::exp(logits(row, i) - maximum) / total - onehot;
      dlogits(row, i) = T(ignored ? 0.0f : static_cast<float>(scale * gradient));
    }
  }
  return loss;
}

template double cross_entropy(Matrix<const float>, Vector<const std::int64_t>, float,
                              Matrix<float>);
template double cross_entropy(Matrix<const float>, Vector<const std::int64_t>, float, Matrix<bf16>);

}  // namespace tessera::kernel::reference
