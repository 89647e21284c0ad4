// SPDX-License-Identifier: Apache-2.0
// How attention is cut: which positions form a block, which keys a block of queries sees, and how
// many (sequence, kv head) pairs are computed at a time.
#pragma once

#include <cstdint>

#include "base/contract.hpp"
#include "kernel/attention.hpp"
#include "kernel/gemm.hpp"
#include "kernel/launch.hpp"

namespace tessera::kernel {

/// Consecutive positions or pairs.
struct Interval {
  std::int64_t first = 0;
  std::int64_t count = 0;

  std::int64_t end() const { return first + count; }
};

/// The interval of at most `step` that starts at `first` and ends at `end` at the latest.
inline Interval interval(std::int64_t first, std::int64_t step, std::int64_t end) {
  return {first, step < end - first ? step : end - first};
}

struct AttentionBlocks {
  std::int64_t pairs = 1;    ///< (sequence, kv head) pairs of one batch of products
  std::int64_t queries = 1;  ///< positions; each has group() rows
  std::int64_t keys = 1;     ///< positions
  std::int64_t bytes = 0;    ///< scratch memory
};

/// Where a block of keys begins and where vector loops over a block begin and end: multiples of
/// this, so that they have no remainder. A multiple of the vector lengths of all types.
inline constexpr std::int64_t attention_lanes = 32;

/// What the blocks are made for. A block's scores are written by one product, read by the softmax
/// and read again by the next product: they should be in the second-level cache all the while. A
/// GPU wants few and large kernels instead, and has the memory for them.
inline constexpr std::int64_t attention_block_bytes = kernels_run_on_host ? 512 << 10 : 256 << 20;
inline constexpr std::int64_t attention_block_rows = kernels_run_on_host ? 256 : 2048;
inline constexpr std::int64_t attention_block_keys = kernels_run_on_host ? 256 : 1024;
inline constexpr std::int64_t attention_block_queries = kernels_run_on_host ? 128 : 1024;

/// Blocks whose scratch memory, score_bytes per score and row_bytes per row of queries, stays
/// within attention_block_bytes (one pair at least). Fewer queries waste less: a block computes
/// all scores of its first to its last visible key, and the causal mask drops half a block's
/// square, a window nearly all of it. Short blocks cost the products more.
inline AttentionBlocks attention_blocks(const AttentionShape& shape, std::int64_t score_bytes,
                                        std::int64_t row_bytes) {
  const auto least = [](std::int64_t a, std::int64_t b) { return a < b ? a : b; };
  const auto bounded = [](std::int64_t x, std::int64_t low, std::int64_t high) {
    return x < low ? low : x > high ? high : x;
  };
  const bool has_window = shape.window > 0 && shape.window < shape.length;
  std::int64_t queries = bounded(attention_block_rows / shape.group(), 16, attention_block_queries);
  if (has_window) queries = least(queries, bounded(shape.window / 4, 16, attention_block_queries));
  AttentionBlocks blocks;
  blocks.queries = least(queries, shape.length);
  blocks.keys = attention_block_keys;
  blocks.keys = least(blocks.keys, shape.length);
  const std::int64_t pair_bytes =
      blocks.queries * shape.group() * (blocks.keys * score_bytes + row_bytes);
  const std::int64_t fitting = attention_block_bytes / pair_bytes;
  blocks.pairs = least(fitting > 1 ? fitting : 1, shape.sequences * shape.kv_heads);
  blocks.bytes = blocks.pairs * pair_bytes;
  return blocks;
}

/// Scores and, unless they are f32 as well, probabilities; sums of values and the softmax's state.
inline AttentionBlocks forward_blocks(const AttentionShape& shape, std::int64_t element_bytes) {
  const std::int64_t narrow = element_bytes == 4 ? 0 : element_bytes;
  return attention_blocks(shape, 4 + narrow, 4 * shape.value_size + 8);
}

/// Scores and gradients of probabilities, and both in T unless that is f32; dout.
inline AttentionBlocks backward_blocks(const AttentionShape& shape, std::int64_t element_bytes) {
  const std::int64_t narrow = element_bytes == 4 ? 0 : element_bytes;
  return attention_blocks(shape, 2 * (4 + narrow), element_bytes * shape.value_size);
}

/// From the first key that one of the queries sees, or a few before it, to the last.
inline Interval visible_keys(const AttentionShape& shape, Interval queries) {
  const std::int64_t oldest = queries.first - shape.window + 1;
  const std::int64_t first = shape.window > 0 && oldest > 0 ? oldest : 0;
  const std::int64_t aligned = first / attention_lanes * attention_lanes;
  return {aligned, queries.end() - aligned};
}

/// The part of a block of `count` elements that something sees, and what vector loops take for it.
struct VisibleSpan {
  std::int64_t begin, end;                ///< visible
  std::int64_t vector_begin, vector_end;  ///< around it, whole vectors where the block has them

  KOKKOS_INLINE_FUNCTION VisibleSpan(std::int64_t first, std::int64_t last, std::int64_t count) {
    begin = first < 0 ? 0 : first > count ? count : first;
    end = last < begin ? begin : last > count ? count : last;
    const std::int64_t after = (end + attention_lanes - 1) / attention_lanes * attention_lanes;
    vector_begin = end == begin ? begin : begin / attention_lanes * attention_lanes;
    vector_end = end == begin ? end : after < count ? after : count;
  }
};

/// Rows [first, first + count) of a contiguous matrix with `cols` columns.
template <class T>
Operand<T> row_block(T* matrix, std::int64_t cols, std::int64_t first, std::int64_t count) {
  return {matrix + first * cols, count, cols, cols};
}

inline void expect_valid(const AttentionShape& shape) {
  TESSERA_EXPECT(shape.sequences >= 0 && shape.length >= 0 && shape.window >= 0);
  TESSERA_EXPECT(shape.kv_heads > 0 && shape.query_heads % shape.kv_heads == 0);
  TESSERA_EXPECT(shape.query_heads > 0 && shape.head_size > 0 && shape.value_size > 0);
  TESSERA_EXPECT(shape.scale > 0.0f);
}

}  // namespace tessera::kernel
