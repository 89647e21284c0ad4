// SPDX-License-Identifier: Apache-2.0
// How attention is cut: which positions form a block, which keys a block of queries sees, and how
// many (sequence, kv head) pairs are computed at a time.
#pragma once

#include <cstdint>

#include "base/contract.hpp"
#include "kernel/attention.hpp"
#include "kernel/gemm.hpp"

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
};

/// Blocks whose scratch memory, score_bytes per score and row_bytes per row of queries, stays
/// within a bound that fits the second-level cache (one pair at least).
inline AttentionBlocks attention_blocks(const AttentionShape& shape, std::int64_t score_bytes,
                                        std::int64_t row_bytes) {
  constexpr std::int64_t max_scratch_bytes = 2 << 20;
  constexpr std::int64_t rows_wanted = 1024;
  const auto least = [](std::int64_t a, std::int64_t b) { return a < b ? a : b; };
  const std::int64_t by_rows = rows_wanted / shape.group();
  const std::int64_t queries = by_rows < 32 ? 32 : least(by_rows, 128);
  AttentionBlocks blocks;
  blocks.queries = least(queries, shape.length);
  blocks.keys = least(256, shape.length);
  const std::int64_t pair_bytes =
      blocks.queries * shape.group() * (blocks.keys * score_bytes + row_bytes);
  const std::int64_t fitting = max_scratch_bytes / pair_bytes;
  blocks.pairs = least(fitting > 1 ? fitting : 1, shape.sequences * shape.kv_heads);
  return blocks;
}

/// The keys that at least one of the queries sees.
inline Interval visible_keys(const AttentionShape& shape, Interval queries) {
  const std::int64_t oldest = queries.first - shape.window + 1;
  const std::int64_t first = shape.window > 0 && oldest > 0 ? oldest : 0;
  return {first, queries.end() - first};
}

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
