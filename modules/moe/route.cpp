// SPDX-License-Identifier: Apache-2.0
#include <tessera/moe/route.hpp>

#include "base/contract.hpp"
#include "kernel/gemm.hpp"
#include "kernel/rows.hpp"
#include "kernel/sigmoid_top_k.hpp"
#include "kernel/top_k.hpp"

namespace tessera::moe {

using kernel::Into;
using kernel::operand;

namespace {

kernel::SigmoidChoice sigmoid_choice(const RouterOptions& options) {
  return {options.normalize_chosen, static_cast<float>(options.scale), options.num_groups,
          options.num_kept_groups};
}

/// A softmax over all, divided by its sum over the chosen, is the softmax over the chosen.
bool is_softmax_of_chosen(const RouterOptions& options) {
  return options.score == RouterScore::softmax_of_chosen ||
         (options.score == RouterScore::softmax && options.normalize_chosen);
}

void choose(const kernel::Execution& execution, const Router& router, const Routing& routing) {
  if (router.options.score == RouterScore::sigmoid) {
    kernel::sigmoid_top_k_forward(execution, sigmoid_choice(router.options), routing.logits,
                                  router.correction_bias, routing.index, routing.weight);
  } else if (is_softmax_of_chosen(router.options)) {
    kernel::top_k_softmax_forward(execution, routing.logits, routing.index, routing.weight);
  } else {
    kernel::top_k_probability_forward(execution, routing.logits, routing.index, routing.weight);
  }
}

/// dlogits is overwritten.
void choose_backward(const kernel::Execution& execution, const Router& router,
                     const Routing& routing, kernel::Matrix<const float> dweight,
                     kernel::Matrix<float> dlogits) {
  if (router.options.score == RouterScore::sigmoid) {
    kernel::sigmoid_top_k_backward(execution, sigmoid_choice(router.options), routing.logits,
                                   routing.index, dweight, dlogits);
  } else if (is_softmax_of_chosen(router.options)) {
    kernel::top_k_softmax_backward(execution, routing.index, routing.weight, dweight, dlogits);
  } else {
    kernel::top_k_probability_backward(execution, routing.logits, routing.index, routing.weight,
                                       dweight, dlogits);
  }
}

}  // namespace

Routing route_forward(const kernel::Execution& execution, const Router& router,
                      kernel::Matrix<const float> x) {
  const auto num_tokens = x.extent(0), num_experts = router.weight.extent(0);
  const std::int64_t top_k = router.options.top_k;
  Routing routing{kernel::new_matrix<float>("router logits", num_tokens, num_experts),
                  kernel::new_matrix<std::int32_t>("router index", num_tokens, top_k),
                  kernel::new_matrix<float>("router weight", num_tokens, top_k)};
  kernel::gemm<float, float>(execution, operand(x), operand(router.weight).t(),
                             operand(routing.logits));
  if (router.bias.extent(0) > 0) kernel::add_bias<float>(execution, router.bias, routing.logits);
  choose(execution, router, routing);
  return routing;
}

void route_backward(const kernel::Execution& execution, const Router& router,
                    const Routing& routing, kernel::Matrix<const float> x,
                    kernel::Matrix<const float> drouting_weight,
                    kernel::Vector<const float> aux_gradient, kernel::Matrix<float> dx,
                    kernel::Matrix<float> dweight, kernel::Vector<float> dbias) {
  const auto dlogits = kernel::new_matrix<float>("router dlogits", routing.logits.extent(0),
                                                 routing.logits.extent(1));
  choose_backward(execution, router, routing, drouting_weight, dlogits);
  if (aux_gradient.extent(0) > 0) {
    TESSERA_EXPECT(router.options.score != RouterScore::sigmoid);
    kernel::softmax_backward_accumulate(execution, routing.logits, aux_gradient, dlogits);
  }
  const kernel::Matrix<const float> dlogits_in = dlogits;
  kernel::gemm<float, float>(execution, operand(dlogits_in).t(), operand(x), operand(dweight),
                             Into::accumulate);
  if (dbias.extent(0) > 0) kernel::add_column_sums<float>(execution, dlogits, dbias);
  kernel::gemm<float, float>(execution, operand(dlogits_in), operand(router.weight), operand(dx));
}

}  // namespace tessera::moe
