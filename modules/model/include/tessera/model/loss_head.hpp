// SPDX-License-Identifier: Apache-2.0
// Final norm, vocabulary product and cross-entropy, in chunks of tokens: logits exist for one chunk
// at a time, and loss and gradient come from the same pass.
#pragma once

#include "kernel/view.hpp"
#include "tessera/model/batch.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/unit_view.hpp"

namespace tessera::model {

/// Where the head's parameters are: the vocabulary matrix is in the embedding's unit when tied.
template <class T>
struct HeadWeights {
  kernel::Vector<const T> norm;        ///< [H]
  kernel::Matrix<const T> vocabulary;  ///< [V, H]
};
struct HeadGradients {
  kernel::Vector<float> norm;        ///< [H], added to
  kernel::Matrix<float> vocabulary;  ///< [V, H], added to
};

/// Tokens whose logits exist at a time, f32 [., V]; their gradients take the same memory. At most
/// 1 % of the tokens, so that the head needs at most 1 % of the full logits' memory, but not fewer
/// than 256 or, for small vocabularies, than 64 MiB hold: each chunk reads the vocabulary matrix
/// twice and adds to its whole gradient, and with fewer tokens that traffic would take longer than
/// the products. local.
std::int64_t logits_chunk_tokens(std::int64_t num_tokens, std::int64_t vocab_size);

/// Sum of the cross-entropy over this rank's targets (natural logarithm). local.
/// x [T, H] f32. With gradients (not null): dx [T, H] f32 is overwritten with scale * d(sum)/dx,
/// gradients are added to. logits (may be null): host [T, V] f32.
template <class T>
double loss_head(const kernel::Execution& execution, const ModelConfig& config,
                 const HeadWeights<T>& weights, const Batch& batch, kernel::Matrix<const float> x,
                 double scale, const HeadGradients* gradients, kernel::Matrix<float> dx,
                 float* logits);

}  // namespace tessera::model
