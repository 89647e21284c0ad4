// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/model/activation_memory.hpp>

#include "kernel/attention_blocks.hpp"
#include "tessera/model/loss_head.hpp"

namespace tessera::model {
namespace {

constexpr std::int64_t f32_bytes = 4;

/// Widths [elements per token] of what a block keeps, by type: of the arithmetic and f32.
struct Widths {
  std::int64_t narrow = 0;
  std::int64_t wide = 0;

  std::int64_t bytes(std::int64_t element_bytes) const {
    return narrow * element_bytes + wide * f32_bytes;
  }
};

Widths attention_kept(const ModelConfig& c) {
  const std::int64_t q = c.num_heads * c.head_size, k = c.num_kv_heads * c.head_size;
  const std::int64_t v = c.num_kv_heads * c.value_size, out = c.num_heads * c.value_size;
  Widths kept{c.hidden_size + q + k + v, c.hidden_size + out + c.num_heads};
  if (c.is_latent()) {
    kept.narrow += c.latent.query_rank + c.latent.key_value_rank;
    kept.wide += c.latent.query_rank + c.latent.key_value_rank;
  } else if (c.query_key_norm != QueryKeyNorm::none || c.clip_qkv > 0.0) {
    kept.wide += q + k + (c.clip_qkv > 0.0 ? v : 0);
  }
  return kept;
}

/// dq, dk and dv as heads and as rows, dout, and the gradient of the norm's output.
Widths attention_temporary(const ModelConfig& c) {
  const std::int64_t heads =
      c.num_heads * c.head_size + c.num_kv_heads * c.head_size + c.num_kv_heads * c.value_size;
  return {heads + c.num_heads * c.value_size, heads + c.hidden_size};
}

Widths mlp_kept(std::int64_t intermediate) { return {intermediate, 2 * intermediate}; }

Widths second_half_kept(const ModelConfig& c, bool has_experts) {
  if (!has_experts) {
    Widths kept = mlp_kept(c.dense_intermediate_size);
    kept.narrow += c.hidden_size;
    kept.wide += c.hidden_size;
    return kept;
  }
  const std::int64_t k = c.router.options.top_k;
  const Widths shared = mlp_kept(c.shared_intermediate_size);
  // Rows and outputs of K experts per token, logits, index and weight.
  return {k * 2 * c.hidden_size + shared.narrow,
          k * (2 * c.intermediate_size + 2) + c.num_experts + c.hidden_size + shared.wide};
}

/// Activated, gradients of hidden and activated, and rows on their way there and back.
Widths second_half_temporary(const ModelConfig& c, bool has_experts) {
  if (!has_experts) {
    return {2 * c.dense_intermediate_size, c.dense_intermediate_size + c.hidden_size};
  }
  const std::int64_t k = c.router.options.top_k;
  return {k * (3 * c.intermediate_size + 3 * c.hidden_size) + c.hidden_size,
          k * c.intermediate_size + 2 * c.hidden_size + c.num_experts};
}

}  // namespace

std::int64_t activation_bytes(const ModelConfig& c, std::int64_t sequences, std::int64_t length,
                              std::int64_t element_bytes) {
  const std::int64_t num_tokens = sequences * length;
  // The input of the first layer and dx live as long as the layers' own.
  std::int64_t kept = 2 * c.hidden_size * f32_bytes, temporary = 0;
  // Of a layer without window, whose blocks are the larger.
  const kernel::AttentionShape attention{.sequences = sequences,
                                         .length = length,
                                         .query_heads = c.num_heads,
                                         .kv_heads = c.num_kv_heads,
                                         .head_size = c.head_size,
                                         .value_size = c.value_size};
  const std::int64_t scratch = kernel::attention_scratch_bytes(attention, element_bytes);
  for (const bool has_experts : c.layer_has_experts) {
    kept += attention_kept(c).bytes(element_bytes) +
            second_half_kept(c, has_experts).bytes(element_bytes);
    temporary =
        std::max({temporary, num_tokens * attention_temporary(c).bytes(element_bytes) + scratch,
                  num_tokens * second_half_temporary(c, has_experts).bytes(element_bytes)});
  }
  const std::int64_t logits =
      logits_chunk_tokens(num_tokens, c.vocab_size) * c.vocab_size * f32_bytes;
  const std::int64_t head =
      num_tokens * Widths{c.hidden_size, c.hidden_size}.bytes(element_bytes) + logits;
  return num_tokens * kept + std::max(temporary, head);
}

}  // namespace tessera::model
