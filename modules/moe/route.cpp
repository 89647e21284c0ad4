// SPDX-License-Identifier: Apache-2.0
#include <tessera/moe/route.hpp>

#include "kernel/gemm.hpp"
#include "kernel/rows.hpp"
#include "kernel/top_k.hpp"

namespace tessera::moe {

using kernel::Into;
using kernel::operand;

Routing route_forward(const kernel::Execution& execution, const Router& router,
                      kernel::Matrix<const float> x) {
  const auto num_tokens = x.extent(0), num_experts = router.weight.extent(0);
  Routing routing{
      kernel::Matrix<float>(kernel::uninitialized("router logits"), num_tokens, num_experts),
      kernel::Matrix<std::int32_t>(kernel::uninitialized("router index"), num_tokens, router.top_k),
      kernel::Matrix<float>(kernel::uninitialized("router weight"), num_tokens, router.top_k)};
  kernel::gemm<float, float>(execution, operand(x), operand(router.weight).t(),
                             operand(routing.logits));
  if (router.bias.extent(0) > 0) kernel::add_bias<float>(execution, router.bias, routing.logits);
  kernel::top_k_softmax_forward(execution, routing.logits, routing.index, routing.weight);
  return routing;
}

void route_backward(const kernel::Execution& execution, const Router& router,
                    const Routing& routing, kernel::Matrix<const float> x,
                    kernel::Matrix<const float> drouting_weight,
                    kernel::Vector<const float> aux_gradient, kernel::Matrix<float> dx,
                    kernel::Matrix<float> dweight, kernel::Vector<float> dbias) {
  const kernel::Matrix<float> dlogits(kernel::uninitialized("dlogits"), routing.logits.extent(0),
                                      routing.logits.extent(1));
  kernel::top_k_softmax_backward(execution, routing.index, routing.weight, drouting_weight,
                                 dlogits);
  if (aux_gradient.extent(0) > 0) {
    kernel::softmax_backward_accumulate(execution, routing.logits, aux_gradient, dlogits);
  }
  const kernel::Matrix<const float> dlogits_in = dlogits;
  kernel::gemm<float, float>(execution, operand(dlogits_in).t(), operand(x), operand(dweight),
                             Into::accumulate);
  if (dbias.extent(0) > 0) kernel::add_column_sums<float>(execution, dlogits, dbias);
  kernel::gemm<float, float>(execution, operand(dlogits_in), operand(router.weight), operand(dx),
                             Into::accumulate);
}

}  // namespace tessera::moe
