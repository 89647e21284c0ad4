// SPDX-License-Identifier: Apache-2.0
#include "kernel/attention_blocks.hpp"
#include "symbolic_layers.hpp"

namespace tessera::study {
namespace {

using enum MemoryKind;
using Block = SymbolicMemory::Block;

}  // namespace

SymbolicAttention::SymbolicAttention(SymbolicMemory& memory, const model::ModelConfig& config,
                                     const LayerSizes& sizes, std::int64_t layer)
    : memory_(memory), config_(config), sizes_(sizes) {
  shape_.sequences = sizes.num_tokens / sizes.length;
  shape_.length = sizes.length;
  shape_.query_heads = config.num_heads;
  shape_.kv_heads = config.num_kv_heads;
  shape_.head_size = config.head_size;
  shape_.value_size = config.value_size;
  shape_.window = config.layer_window[static_cast<std::size_t>(layer)];
}

void SymbolicAttention::attend(Blocks& saved) const {
  const std::int64_t heads = shape_.query_heads, kv_heads = shape_.kv_heads;
  const std::int64_t bytes = sizes_.element_bytes;
  saved.push_back(take(activations, 1, f32_bytes));                          // rstd
  saved.push_back(take(activations, config_.hidden_size, bytes));            // normed
  saved.push_back(take(activations, heads * shape_.head_size, bytes));       // q
  saved.push_back(take(activations, kv_heads * shape_.head_size, bytes));    // k
  saved.push_back(take(activations, kv_heads * shape_.value_size, bytes));   // v
  saved.push_back(take(activations, heads * shape_.value_size, f32_bytes));  // out
  saved.push_back(take(activations, heads, f32_bytes));                      // lse
  if (config_.is_latent()) {
    latent_forward(saved);
  } else {
    const bool has_norm = config_.query_key_norm != model::QueryKeyNorm::none;
    grouped_forward(saved, heads * shape_.head_size, has_norm);
    grouped_forward(saved, kv_heads * shape_.head_size, has_norm);
    grouped_forward(saved, kv_heads * shape_.head_size, false);
  }
  scratch_forward();
}

/// One of queries, keys and values.
void SymbolicAttention::grouped_forward(Blocks& saved, std::int64_t width, bool has_norm) const {
  const bool clips = config_.clip_qkv > 0.0, is_plain = !has_norm && !clips;
  Block rows = take(is_plain ? temporaries : activations, width, f32_bytes);
  if (is_plain) return;
  saved.push_back(rows);
  if (has_norm) {
    const bool each_head = config_.query_key_norm == model::QueryKeyNorm::head;
    saved.push_back(take(activations, each_head ? width / shape_.head_size : 1, f32_bytes));
    rows = take(temporaries, width, f32_bytes);
  }
  if (clips) rows = take(temporaries, width, f32_bytes);
}

void SymbolicAttention::latent_forward(Blocks& saved) const {
  const model::LatentAttention& latent = config_.latent;
  const std::int64_t rank = latent.key_value_rank, bytes = sizes_.element_bytes;
  const auto bottleneck = [&](std::int64_t width) {
    const Block compressed = take(activations, width, f32_bytes);
    saved.push_back(take(activations, 1, f32_bytes));
    saved.push_back(take(activations, width, bytes));
    return compressed;
  };
  if (latent.query_rank > 0) {
    const Block unused = bottleneck(latent.query_rank);
    saved.push_back(take(activations, latent.query_rank, f32_bytes));
  }
  const Block projected = take(temporaries, shape_.query_heads * shape_.head_size, f32_bytes);
  const Block compressed = take(temporaries, rank + latent.rope_size, f32_bytes);
  saved.push_back(bottleneck(rank));
  take(temporaries, shape_.query_heads * (latent.nope_size + shape_.value_size), f32_bytes);
}

void SymbolicAttention::scratch_forward() const {
  const kernel::AttentionBlocks blocks = kernel::forward_blocks(shape_, sizes_.element_bytes);
  memory_.touch(temporaries, blocks.bytes);
}

Block SymbolicAttention::forward(Blocks& saved) const {
  attend(saved);
  Block y = take(activations, config_.hidden_size, f32_bytes);
  if (sizes_.element_bytes != f32_bytes) {
    take(temporaries, shape_.query_heads * shape_.value_size, sizes_.element_bytes);
  }
  return y;
}

void SymbolicAttention::backward() const {
  const std::int64_t heads = shape_.query_heads, kv_heads = shape_.kv_heads;
  const std::int64_t bytes = sizes_.element_bytes;
  Block dout;
  {
    const bool narrows = bytes != f32_bytes;
    const Block dy = take(temporaries, narrows ? config_.hidden_size : 0, bytes);
    const Block out = take(temporaries, narrows ? heads * shape_.value_size : 0, bytes);
    dout = take(temporaries, heads * shape_.value_size, bytes);
  }
  const Block dq = take(temporaries, heads * shape_.head_size, f32_bytes);
  const Block dk = take(temporaries, kv_heads * shape_.head_size, f32_bytes);
  const Block dv = take(temporaries, kv_heads * shape_.value_size, f32_bytes);
  scratch_backward();
  const Block dnormed = take(temporaries, config_.hidden_size, f32_bytes);
  if (config_.is_latent()) return latent_backward();
  const bool has_norm = config_.query_key_norm != model::QueryKeyNorm::none;
  grouped_backward(heads * shape_.head_size, has_norm);
  grouped_backward(kv_heads * shape_.head_size, has_norm);
  grouped_backward(kv_heads * shape_.head_size, false);
}

void SymbolicAttention::scratch_backward() const {
  const std::int64_t rows = sizes_.num_tokens * shape_.query_heads;
  const Block products = memory_.take(temporaries, rows * f32_bytes);
  const Block log2_lse = memory_.take(temporaries, rows * f32_bytes);
  memory_.touch(temporaries, kernel::backward_blocks(shape_, sizes_.element_bytes).bytes);
}

void SymbolicAttention::grouped_backward(std::int64_t width, bool has_norm) const {
  const bool clips = config_.clip_qkv > 0.0;
  if (!has_norm && !clips) {
    take(temporaries, width, sizes_.element_bytes);
    return;
  }
  Block drows = take(temporaries, width, f32_bytes);
  const Block before = take(temporaries, clips && has_norm ? width : 0, f32_bytes);
  if (has_norm) drows = take(temporaries, width, f32_bytes);
  if (sizes_.element_bytes != f32_bytes) take(temporaries, width, sizes_.element_bytes);
}

void SymbolicAttention::latent_backward() const {
  const model::LatentAttention& latent = config_.latent;
  const std::int64_t rank = latent.key_value_rank, bytes = sizes_.element_bytes;
  const bool narrows = bytes != f32_bytes;
  const Block dprojected = take(temporaries, shape_.query_heads * shape_.head_size, bytes);
  if (latent.query_rank > 0) {
    const Block dnormed_rank = take(temporaries, latent.query_rank, f32_bytes);
    const Block before = take(temporaries, latent.query_rank, f32_bytes);
    take(temporaries, narrows ? latent.query_rank : 0, bytes);
  }
  const Block dup =
      take(temporaries, shape_.query_heads * (latent.nope_size + shape_.value_size), bytes);
  const Block dcompressed = take(temporaries, rank + latent.rope_size, f32_bytes);
  const Block dnormed_rank = take(temporaries, rank, f32_bytes);
  const Block before = take(temporaries, rank, f32_bytes);
  take(temporaries, narrows ? rank + latent.rope_size : 0, bytes);
}

}  // namespace tessera::study
