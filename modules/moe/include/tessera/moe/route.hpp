// SPDX-License-Identifier: Apache-2.0
// Routing: which experts each token goes to, and with which weight. Products and scores are f32 in
// every mode. First stage of the MoE layer: route -> dispatch -> expert -> combine.
#pragma once

#include "kernel/view.hpp"
#include "tessera/moe/router_options.hpp"

namespace tessera::moe {

/// The router's choice for T tokens among E experts, kept from forward to backward.
struct Routing {
  kernel::Matrix<float> logits;        ///< [T, E]
  kernel::Matrix<std::int32_t> index;  ///< [T, K] expert of each choice, best first
  kernel::Matrix<float> weight;        ///< [T, K] of each choice
};

/// Router parameters widened to f32.
struct Router {
  kernel::Matrix<const float> weight;  ///< [E, H]
  kernel::Vector<const float> bias;    ///< [E] or empty
  /// [E] or empty: added to sigmoid scores for the choice alone, hence without a gradient.
  kernel::Vector<const float> correction_bias;
  RouterOptions options;
};

/// logits = x W^T + b, then choice (ties to the lower index) and weights as RouterScore says; see
/// kernel/top_k.hpp and kernel/sigmoid_top_k.hpp. x [T, H] f32. local.
Routing route_forward(const kernel::Execution& execution, const Router& router,
                      kernel::Matrix<const float> x);

/// Overwrites dx [T, H]; adds to dweight [E, H] and dbias [E] (or empty); all f32. local.
/// drouting_weight [T, K]: gradient of the loss with respect to routing.weight. aux_gradient [E]
/// (or empty, as it must be for sigmoid scores): gradient of the auxiliary loss with respect to
/// each token's full softmax probabilities.
void route_backward(const kernel::Execution& execution, const Router& router,
                    const Routing& routing, kernel::Matrix<const float> x,
                    kernel::Matrix<const float> drouting_weight,
                    kernel::Vector<const float> aux_gradient, kernel::Matrix<float> dx,
                    kernel::Matrix<float> dweight, kernel::Vector<float> dbias);

}  // namespace tessera::moe
