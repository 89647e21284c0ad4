// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/model/loss_head.hpp>

#include "kernel/cross_entropy.hpp"
#include "kernel/gemm.hpp"
#include "kernel/rms_norm.hpp"

namespace tessera::model {
namespace {

using kernel::Into;
using kernel::operand;

template <class V>
auto rows(const V& matrix, std::int64_t begin, std::int64_t end) {
  return V(matrix.data() + begin * matrix.extent(1), end - begin, matrix.extent(1));
}

void copy_to_host(const kernel::Matrix<float>& logits, float* destination) {
  Kokkos::deep_copy(Kokkos::View<float*, Kokkos::HostSpace>(destination, logits.size()),
                    kernel::Vector<float>(logits.data(), logits.size()));
}

}  // namespace

std::int64_t logits_chunk_tokens(std::int64_t num_tokens, std::int64_t vocab_size) {
  constexpr std::int64_t least_tokens = 256, least_bytes = 64 << 20;
  const std::int64_t floor = std::max<std::int64_t>(least_tokens, least_bytes / (vocab_size * 4));
  return std::clamp<std::int64_t>(num_tokens / 100, std::min(floor, num_tokens), num_tokens);
}

template <class T>
double loss_head(const kernel::Execution& execution, const ModelConfig& config,
                 const HeadWeights<T>& weights, const Batch& batch, kernel::Matrix<const float> x,
                 double scale, const HeadGradients* gradients, kernel::Matrix<float> dx,
                 float* logits_out) {
  const std::int64_t num_tokens = batch.num_tokens(), hidden = config.hidden_size;
  const std::int64_t vocab = config.vocab_size;
  const std::int64_t chunk = logits_chunk_tokens(num_tokens, vocab);
  const auto normed = kernel::new_matrix<T>("head normed", num_tokens, hidden);
  const auto rstd = kernel::new_vector<float>("head rstd", num_tokens);
  kernel::rms_norm_forward<T, T>(execution, x, weights.norm,
                                 static_cast<float>(config.rms_norm_epsilon), normed, rstd);
  const auto dnormed =
      kernel::new_matrix<float>("head dnormed", gradients == nullptr ? 0 : num_tokens, hidden);
  const auto logits = kernel::new_matrix<float>("logits", chunk, vocab);

  double loss = 0.0;
  for (std::int64_t begin = 0; begin < num_tokens; begin += chunk) {
    const std::int64_t end = std::min(begin + chunk, num_tokens);
    const kernel::Matrix<const T> h = rows(normed, begin, end);
    const auto part = rows(logits, 0, end - begin);
    const kernel::Vector<const std::int64_t> targets(batch.targets.data() + begin, end - begin);
    kernel::gemm<T, float>(execution, operand(h), operand(weights.vocabulary).t(), operand(part));
    if (logits_out != nullptr) copy_to_host(part, logits_out + begin * vocab);
    if (gradients == nullptr) {
      loss += kernel::cross_entropy(execution, part, targets);
      continue;
    }
    loss += kernel::cross_entropy_gradient<T>(execution, part, targets, static_cast<float>(scale));
    const auto dlogits = kernel::dlogits_in<T>(part);
    kernel::gemm<T, float>(execution, dlogits, operand(weights.vocabulary),
                           operand(rows(dnormed, begin, end)));
    kernel::gemm<T, float>(execution, dlogits.t(), operand(h), operand(gradients->vocabulary),
                           Into::accumulate);
  }
  if (gradients != nullptr) {
    Kokkos::deep_copy(execution, dx, 0.0f);
    kernel::rms_norm_backward<T>(execution, dnormed, x, weights.norm, rstd, dx, gradients->norm);
  }
  return loss;
}

template double loss_head(const kernel::Execution&, const ModelConfig&, const HeadWeights<float>&,
                          const Batch&, kernel::Matrix<const float>, double, const HeadGradients*,
                          kernel::Matrix<float>, float*);
template double loss_head(const kernel::Execution&, const ModelConfig&, const HeadWeights<bf16>&,
                          const Batch&, kernel::Matrix<const float>, double, const HeadGradients*,
                          kernel::Matrix<float>, float*);

}  // namespace tessera::model
