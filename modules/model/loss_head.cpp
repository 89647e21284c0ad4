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

/// dlogits shares the logits' memory where the types agree.
template <class T>
kernel::Matrix<T> gradient_buffer(const kernel::Matrix<float>& logits) {
  if constexpr (std::is_same_v<T, float>) {
    return logits;
  } else {
    return kernel::Matrix<T>(kernel::uninitialized("dlogits"), logits.extent(0), logits.extent(1));
  }
}

void copy_to_host(const kernel::Matrix<float>& logits, float* destination) {
  Kokkos::deep_copy(Kokkos::View<float*, Kokkos::HostSpace>(destination, logits.size()),
                    kernel::Vector<float>(logits.data(), logits.size()));
}

}  // namespace

template <class T>
double loss_head(const kernel::Execution& execution, const ModelConfig& config,
                 const HeadWeights<T>& weights, const Batch& batch, kernel::Matrix<const float> x,
                 double scale, const HeadGradients* gradients, kernel::Matrix<float> dx,
                 float* logits_out) {
  const std::int64_t num_tokens = batch.num_tokens(), hidden = config.hidden_size;
  const std::int64_t vocab = config.vocab_size;
  const std::int64_t chunk = std::clamp<std::int64_t>(logits_chunk_bytes / (vocab * 4), 1,
                                                      std::max<std::int64_t>(num_tokens, 1));
  const kernel::Matrix<T> normed(kernel::uninitialized("head normed"), num_tokens, hidden);
  const kernel::Vector<float> rstd(kernel::uninitialized("head rstd"), num_tokens);
  kernel::rms_norm_forward<T, T>(execution, x, weights.norm,
                                 static_cast<float>(config.rms_norm_epsilon), normed, rstd);
  const kernel::Matrix<float> dnormed(kernel::uninitialized("head dnormed"),
                                      gradients == nullptr ? 0 : num_tokens, hidden);
  const kernel::Matrix<float> logits(kernel::uninitialized("logits"), chunk, vocab);
  const kernel::Matrix<T> dlogits =
      gradients == nullptr ? kernel::Matrix<T>() : gradient_buffer<T>(logits);

  double loss = 0.0;
  for (std::int64_t begin = 0; begin < num_tokens; begin += chunk) {
    const std::int64_t end = std::min(begin + chunk, num_tokens);
    const kernel::Matrix<const T> h = rows(normed, begin, end);
    const auto part = rows(logits, 0, end - begin);
    kernel::gemm<T, float>(execution, operand(h), operand(weights.vocabulary).t(), operand(part));
    if (logits_out != nullptr) copy_to_host(part, logits_out + begin * vocab);
    const auto dpart = gradients == nullptr ? dlogits : rows(dlogits, 0, end - begin);
    loss += kernel::cross_entropy<T>(
        execution, part,
        kernel::Vector<const std::int64_t>(batch.targets.data() + begin, end - begin),
        static_cast<float>(scale), dpart);
    if (gradients == nullptr) continue;
    const kernel::Matrix<const T> dpart_in = dpart;
    kernel::gemm<T, float>(execution, operand(dpart_in), operand(weights.vocabulary),
                           operand(rows(dnormed, begin, end)));
    kernel::gemm<T, float>(execution, operand(dpart_in).t(), operand(h),
                           operand(gradients->vocabulary), Into::accumulate);
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
