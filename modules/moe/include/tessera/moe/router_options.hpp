// SPDX-License-Identifier: Apache-2.0
// How a router turns logits into choices and weights. Apart from the kernels, so that
// configurations need no Kokkos.
#pragma once

#include <cstdint>

namespace tessera::moe {

enum class RouterScore {
  softmax_of_chosen,  ///< top-k of the logits, softmax over those (gpt-oss)
  softmax,            ///< softmax over all, top-k of it (Mixtral, Qwen3-MoE, OLMoE)
  sigmoid,            ///< sigmoid; the choice is by score + correction bias within the kept groups
                      ///< (DeepSeek-V3, arXiv:2412.19437, section 2.1.2)
};

struct RouterOptions {
  RouterScore score = RouterScore::softmax_of_chosen;
  std::int64_t top_k = 1;
  bool normalize_chosen = true;  ///< softmax, sigmoid: weights divided by their sum over the chosen
  double scale = 1.0;            ///< sigmoid: of the weights (routed_scaling_factor)
  std::int64_t num_groups = 1;   ///< sigmoid: experts in equal groups (n_group)
  std::int64_t num_kept_groups = 1;  ///< groups with the largest sum of their two best (topk_group)
};

}  // namespace tessera::moe
