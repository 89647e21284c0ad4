// SPDX-License-Identifier: Apache-2.0
// The loss head for a vocabulary matrix that comes in chunks of rows, each gathered only while it
// is used. The gradient of a chunk needs the sum of exponentials over all chunks, so each comes
// twice: first for the sums, then for the gradient, with its logits computed again. Keeping them
// instead would take the memory of all logits. One pass can yield dx by rescaling, as attention
// does, but not the matrix's own gradient, whose every element sums over tokens with different
// sums. So four products instead of three, the fewest that are exact.
#pragma once

#include "kernel/cross_entropy.hpp"
#include "tessera/model/batch.hpp"
#include "tessera/model/config.hpp"

namespace tessera::model {

/// One for each pass; calls in the order in which they are declared, chunks in any order, each
/// once.
template <class T>
class ChunkedLossHead {
 public:
  /// x [T, H] f32. local.
  ChunkedLossHead(const kernel::Execution& execution, const ModelConfig& config, const Batch& batch,
                  kernel::Matrix<const float> x, double scale);

  /// The final norm, norm [H]. local.
  void normalize(kernel::Vector<const T> norm);
  /// rows [V_c, H] of the matrix, the first of them class `first`. logits (may be null): host
  /// [T, V] f32, of which the chunk's columns are written. local.
  void add_logits(kernel::Matrix<const T> rows, std::int64_t first, float* logits);
  /// Sum of the cross-entropy over this rank's targets (natural logarithm). local.
  double loss() const;
  /// Adds to gradient [V_c, H]. local.
  void add_gradient(kernel::Matrix<const T> rows, std::int64_t first,
                    kernel::Matrix<float> gradient);
  /// dx [T, H] is overwritten with scale * d(sum)/dx, dnorm [H] added to. local.
  void finish(kernel::Vector<const T> norm, kernel::Vector<float> dnorm, kernel::Matrix<float> dx);

 private:
  /// Of the tokens [begin, end), in memory that the next ones reuse.
  kernel::Matrix<float> compute_logits(kernel::Matrix<const T> rows, std::int64_t begin,
                                       std::int64_t end);
  kernel::Vector<const std::int64_t> targets(std::int64_t begin, std::int64_t end) const;
  std::int64_t chunk_tokens(std::int64_t num_rows) const;

  kernel::Execution execution_;
  const ModelConfig& config_;
  const Batch& batch_;
  kernel::Matrix<const float> x_;
  float scale_;
  kernel::Matrix<T> normed_;
  kernel::Vector<float> rstd_;
  kernel::RowSums sums_;
  kernel::Matrix<float> logits_, dnormed_;
};

}  // namespace tessera::model
