// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/model/chunked_loss_head.hpp>
#include <tessera/model/loss_head.hpp>

#include "kernel/gemm.hpp"
#include "kernel/rms_norm.hpp"

namespace tessera::model {
namespace {

using kernel::Into;
using kernel::operand;

template <class V>
auto rows_between(const V& matrix, std::int64_t begin, std::int64_t end) {
  return V(matrix.data() + begin * matrix.extent(1), end - begin, matrix.extent(1));
}

/// Into columns [first, first + cols) of the host's [T, V], from row `begin` on.
void copy_columns(const kernel::Matrix<float>& logits, std::int64_t begin, std::int64_t first,
                  std::int64_t vocab_size, float* destination) {
  const auto host = kernel::host_copy(logits);
  for (std::size_t row = 0; row < host.extent(0); ++row) {
    std::copy_n(&host(row, 0), host.extent(1),
                destination + (begin + static_cast<std::int64_t>(row)) * vocab_size + first);
  }
}

}  // namespace

template <class T>
ChunkedLossHead<T>::ChunkedLossHead(const kernel::Execution& execution, const ModelConfig& config,
                                    const Batch& batch, kernel::Matrix<const float> x, double scale)
    : execution_(execution),
      config_(config),
      batch_(batch),
      x_(x),
      scale_(static_cast<float>(scale)),
      normed_(kernel::new_matrix<T>("head normed", x.extent(0), x.extent(1))),
      rstd_(kernel::new_vector<float>("head rstd", x.extent(0))),
      sums_(kernel::new_row_sums(execution, x.extent(0))) {
  const std::int64_t rows = std::min(config.vocabulary_chunk, config.vocab_size);
  logits_ = kernel::new_matrix<float>("logits", chunk_tokens(rows), rows);
}

/// As many tokens as the whole head has at a time, or more, as a chunk's logits are shorter.
template <class T>
std::int64_t ChunkedLossHead<T>::chunk_tokens(std::int64_t num_rows) const {
  return logits_chunk_tokens(batch_.num_tokens(), num_rows);
}

template <class T>
void ChunkedLossHead<T>::normalize(kernel::Vector<const T> norm) {
  kernel::rms_norm_forward<T, T>(execution_, x_, norm, static_cast<float>(config_.rms_norm_epsilon),
                                 normed_, rstd_);
}

template <class T>
kernel::Matrix<float> ChunkedLossHead<T>::compute_logits(kernel::Matrix<const T> rows,
                                                         std::int64_t begin, std::int64_t end) {
  const kernel::Matrix<const T> h = rows_between(normed_, begin, end);
  const kernel::Matrix<float> part(logits_.data(), end - begin, rows.extent(0));
  kernel::gemm<T, float>(execution_, operand(h), operand(rows).t(), operand(part));
  return part;
}

template <class T>
kernel::Vector<const std::int64_t> ChunkedLossHead<T>::targets(std::int64_t begin,
                                                               std::int64_t end) const {
  return kernel::Vector<const std::int64_t>(batch_.targets.data() + begin, end - begin);
}

template <class T>
void ChunkedLossHead<T>::add_logits(kernel::Matrix<const T> rows, std::int64_t first,
                                    float* logits) {
  const std::int64_t num_tokens = batch_.num_tokens(), step = logits_.extent(0);
  for (std::int64_t begin = 0; begin < num_tokens; begin += step) {
    const std::int64_t end = std::min(begin + step, num_tokens);
    const kernel::Matrix<float> part = compute_logits(rows, begin, end);
    if (logits != nullptr) copy_columns(part, begin, first, config_.vocab_size, logits);
    kernel::add_classes(execution_, part, targets(begin, end), first, sums_.rows(begin, end));
  }
}

template <class T>
double ChunkedLossHead<T>::loss() const {
  return kernel::cross_entropy(execution_, sums_, targets(0, batch_.num_tokens()));
}

template <class T>
void ChunkedLossHead<T>::add_gradient(kernel::Matrix<const T> rows, std::int64_t first,
                                      kernel::Matrix<float> gradient) {
  const std::int64_t num_tokens = batch_.num_tokens(), step = logits_.extent(0);
  const bool is_first_chunk = dnormed_.data() == nullptr;
  if (is_first_chunk) {
    dnormed_ = kernel::new_matrix<float>("head dnormed", num_tokens, config_.hidden_size);
  }
  for (std::int64_t begin = 0; begin < num_tokens; begin += step) {
    const std::int64_t end = std::min(begin + step, num_tokens);
    const kernel::Matrix<float> part = compute_logits(rows, begin, end);
    kernel::classes_gradient<T>(execution_, part, targets(begin, end), first, scale_,
                                sums_.rows(begin, end));
    const auto dlogits = kernel::dlogits_in<T>(part);
    const kernel::Matrix<const T> h = rows_between(normed_, begin, end);
    kernel::gemm<T, float>(execution_, dlogits, operand(rows),
                           operand(rows_between(dnormed_, begin, end)),
                           is_first_chunk ? Into::overwrite : Into::accumulate);
    kernel::gemm<T, float>(execution_, dlogits.t(), operand(h), operand(gradient),
                           Into::accumulate);
  }
}

template <class T>
void ChunkedLossHead<T>::finish(kernel::Vector<const T> norm, kernel::Vector<float> dnorm,
                                kernel::Matrix<float> dx) {
  Kokkos::deep_copy(execution_, dx, 0.0f);
  kernel::rms_norm_backward<T>(execution_, dnormed_, x_, norm, rstd_, dx, dnorm);
}

template class ChunkedLossHead<float>;
template class ChunkedLossHead<bf16>;

}  // namespace tessera::model
