// SPDX-License-Identifier: Apache-2.0
// The packed product with AVX-512: 8 rows x 32 columns of sums in registers, A broadcast. How 32 k
// are multiplied is left to the file that includes this. Everything has internal linkage, so that
// no other file can come by these instructions.
#pragma once

#include <immintrin.h>

#include "kernel/gemm_pack.hpp"
#include "kernel/gemm_packed.hpp"
#include "kernel/gemm_store.hpp"

namespace tessera::kernel::packed {
namespace {

constexpr int block_rows = 8;
constexpr std::int64_t prefetched_tiles = 8;  // of A, which may come from beyond L2
constexpr std::int64_t max_tiles = 32;        // of a block of k: L2 is fast enough for more

/// One block of rows times one panel, over one block of k.
struct Block {
  const char* a;
  std::int64_t a_row_bytes;
  const char* b;
  std::int64_t num_tiles;
  const float* sums_before;  ///< null at the first block of k
  float* sums_after;         ///< null at the last block of k
  std::int64_t sums_stride;
  Result c;
  std::int64_t cols;
  Ahead* ahead;
  std::int64_t lines_ahead;  ///< with each tile
};

Result at(const Result& c, std::int64_t row, std::int64_t col) {
  const std::int64_t offset = c.is_transposed ? col * c.stride + row : row * c.stride + col;
  Result moved = c;
  moved.data = c.is_bf16 ? static_cast<void*>(static_cast<bf16*>(c.data) + offset)
                         : static_cast<void*>(static_cast<float*>(c.data) + offset);
  if (c.bias != nullptr) moved.bias += c.is_transposed ? row : col;
  return moved;
}

/// To be written after the sums are complete. Always inline: GCC 12 takes calls of a function that
/// only prefetches for calls without effect.
[[gnu::always_inline]] inline void prefetch(const Result& c, int num_rows, std::int64_t num_cols) {
  const std::int64_t stride_bytes = c.stride * (c.is_bf16 ? 2 : 4);
  const char* line = static_cast<const char*>(c.data);
  if (c.is_transposed) {
    for (std::int64_t col = 0; col < panel_cols && col < num_cols; ++col, line += stride_bytes) {
      __builtin_prefetch(line, 1);
    }
    return;
  }
  for (int r = 0; r < num_rows; ++r, line += stride_bytes) {
    __builtin_prefetch(line, 1);
    __builtin_prefetch(line + 64, 1);
  }
}

/// Unrolled, or the sums would leave their registers.
template <int num_rows, int num_vectors, class Use>
inline void for_each_sum(const Use& use) {
#pragma GCC unroll 8
  for (int r = 0; r < num_rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < num_vectors; ++v) use(r, v);
  }
}

template <int num_rows, int num_vectors>
void store_transposed(const Block& block, const __m512 (&sums)[num_rows][num_vectors]) {
#pragma GCC unroll 2
  for (int v = 0; v < num_vectors; ++v) {
#pragma GCC unroll 2
    for (int first = 0; first < num_rows; first += 4) {
      __m512 four[4];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        four[r] = first + r < num_rows ? sums[first + r][v] : _mm512_setzero_ps();
      }
      store_columns(block.c, first, v * 16, num_rows - first < 4 ? num_rows - first : 4,
                    block.cols - v * 16, four);
    }
  }
}

/// Tiles provides
///   template <bool is_packed> static void add(const Block&, __m512 (&sums)[num_rows][num_vectors])
/// which adds the products of all tiles of the block to its sums, and calls prefetch(*block.ahead,
/// block.lines_ahead) with each tile.
template <class Tiles, bool is_packed, int num_rows, int num_vectors>
void multiply_block(const Block& block) {
  __m512 sums[num_rows][num_vectors];
  for_each_sum<num_rows, num_vectors>([&](int r, int v) { sums[r][v] = _mm512_setzero_ps(); });
  if (block.sums_after == nullptr && !block.c.bypasses_caches)
    prefetch(block.c, num_rows, block.cols);
  Tiles::template add<is_packed>(block, sums);
  if (block.sums_before != nullptr) {
    for_each_sum<num_rows, num_vectors>([&](int r, int v) {
      const float* const before = block.sums_before + r * block.sums_stride + v * 16;
      sums[r][v] = _mm512_add_ps(_mm512_load_ps(before), sums[r][v]);
    });
  }
  if (block.sums_after != nullptr) {
    for_each_sum<num_rows, num_vectors>([&](int r, int v) {
      _mm512_store_ps(block.sums_after + r * block.sums_stride + v * 16, sums[r][v]);
    });
    return;
  }
  if (block.c.is_transposed) return store_transposed(block, sums);
  for_each_sum<num_rows, num_vectors>([&](int r, int v) {
    store_sums(block.c, r, v * 16, first_lanes(block.cols - v * 16), sums[r][v]);
  });
}

template <class Tiles, bool is_packed, int num_vectors>
void multiply_block(std::int64_t num_rows, const Block& block) {
  switch (num_rows) {
    case 1: return multiply_block<Tiles, is_packed, 1, num_vectors>(block);
    case 2: return multiply_block<Tiles, is_packed, 2, num_vectors>(block);
    case 3: return multiply_block<Tiles, is_packed, 3, num_vectors>(block);
    case 4: return multiply_block<Tiles, is_packed, 4, num_vectors>(block);
    case 5: return multiply_block<Tiles, is_packed, 5, num_vectors>(block);
    case 6: return multiply_block<Tiles, is_packed, 6, num_vectors>(block);
    case 7: return multiply_block<Tiles, is_packed, 7, num_vectors>(block);
    default: return multiply_block<Tiles, is_packed, block_rows, num_vectors>(block);
  }
}

/// Tiles [first, first + num_tiles) of k, for one panel and all rows of the strip.
template <class Tiles>
void multiply_panel(const Strip& strip, std::int64_t first, std::int64_t num_tiles,
                    std::int64_t col) {
  const std::int64_t sums_stride = (strip.cols + panel_cols - 1) / panel_cols * panel_cols;
  const std::int64_t cols = strip.cols - col;
  const bool is_last = first + num_tiles >= strip.num_tiles;
  const std::int64_t num_blocks = (strip.rows + block_rows - 1) / block_rows;
  const std::int64_t lines_ahead = (strip.ahead->lines_per_tile + num_blocks - 1) / num_blocks;
  for (std::int64_t row = 0; row < strip.rows; row += block_rows) {
    float* const sums = strip.partial + row * sums_stride + col;
    const Block block{strip.a.data + row / tile_rows * strip.a.lower_bytes +
                          row % tile_rows * strip.a.row_bytes + first * strip.a.tile_bytes,
                      strip.a.row_bytes,
                      strip.b + (col / panel_cols * strip.num_tiles + first) * panel_tile_bytes,
                      is_last ? strip.num_tiles - first : num_tiles,
                      first == 0 ? nullptr : sums,
                      is_last ? nullptr : sums,
                      sums_stride,
                      at(strip.c, row, col),
                      cols,
                      strip.ahead,
                      lines_ahead};
    const std::int64_t rows = strip.rows - row;
    if (strip.a.tile_bytes == tile_bytes) {
      cols > 16 ? multiply_block<Tiles, true, 2>(rows, block)
                : multiply_block<Tiles, true, 1>(rows, block);
    } else {
      cols > 16 ? multiply_block<Tiles, false, 2>(rows, block)
                : multiply_block<Tiles, false, 1>(rows, block);
    }
  }
}

template <class Tiles>
void multiply(const Strip& strip) {
  const std::int64_t step = tiles_per_block(strip.num_tiles, max_tiles);
  for (std::int64_t first = 0; first < strip.num_tiles; first += step) {
    for (std::int64_t col = 0; col < strip.cols; col += panel_cols) {
      multiply_panel<Tiles>(strip, first, step, col);
    }
  }
}

void finish() { _mm_sfence(); }

/// Addresses of packed rows are known to the compiler.
template <bool is_packed>
std::int64_t row_bytes_of_a(const Block& block) {
  return is_packed ? 64 : block.a_row_bytes;
}
template <bool is_packed>
constexpr std::int64_t tile_bytes_of_a() {
  return is_packed ? tile_bytes : 64;
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}

}  // namespace
}  // namespace tessera::kernel::packed
