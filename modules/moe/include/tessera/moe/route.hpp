// SPDX-License-Identifier: Apache-2.0
// Routing: which experts each token goes to, and with which weight. Products and softmax are f32 in
// every mode. First stage of the MoE layer: route -> dispatch -> expert -> combine.
#pragma once

#include "kernel/view.hpp"

namespace tessera::moe {

/// The router's choice for T tokens among E experts, kept from forward to backward.
struct Routing {
  kernel::Matrix<float> logits;        ///< [T, E]
  kernel::Matrix<std::int32_t> index;  ///< [T, K] expert of each choice, largest logit first
  kernel::Matrix<float> weight;        ///< [T, K] softmax over the K chosen logits
};

/// Router parameters widened to f32.
struct Router {
  kernel::Matrix<const float> weight;  ///< [E, H]
  kernel::Vector<const float> bias;    ///< [E] or empty
  std::int64_t top_k = 1;
};

/// logits = x W^T + b; top-k of the raw logits (ties to the lower index); softmax over the chosen
/// (gpt-oss). x [T, H] f32. local.
Routing route_forward(const kernel::Execution& execution, const Router& router,
                      kernel::Matrix<const float> x);

/// Adds to dx [T, H], dweight [E, H] and dbias [E] (or empty), all f32. local.
/// drouting_weight [T, K]: gradient of the loss with respect to routing.weight. aux_gradient [E]
/// (or empty): gradient of the auxiliary loss with respect to each token's full softmax
/// probabilities.
void route_backward(const kernel::Execution& execution, const Router& router,
                    const Routing& routing, kernel::Matrix<const float> x,
                    kernel::Matrix<const float> drouting_weight,
                    kernel::Vector<const float> aux_gradient, kernel::Matrix<float> dx,
                    kernel::Matrix<float> dweight, kernel::Vector<float> dbias);

}  // namespace tessera::moe
