// SPDX-License-Identifier: Apache-2.0
// Packing by blocks of 16 lines x 32 k: sixteen registers of 16 pairs of k, one line each or one
// pair each as they come from memory, transposed where the format wants the other. Includes nothing
// whose inline functions other files could be linked to.
#include "kernel/gemm_pack.hpp"

#include <immintrin.h>

namespace tessera::kernel::packed {
namespace {

constexpr std::int64_t block_lines = 16;

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

__mmask32 first_elements(std::int64_t count) {
  return static_cast<__mmask32>(count >= 32 ? 0xffffffffu : (1u << count) - 1u);
}

/// What is needed a little later, into L2: strides are too long for the processor to foresee.
inline void prefetch(const bf16* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1);
}

/// pairs[line]: lines that are contiguous along k.
template <bool is_whole>
inline void load_lines(const Lines& lines, std::int64_t first, std::int64_t k,
                       __m512i (&pairs)[16]) {
  const std::int64_t count = smaller(lines.count - first, block_lines);
  const __mmask32 mask = first_elements(lines.depth - k);
  const bf16* at = lines.data + first * lines.stride + k;
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i, at += lines.stride) {
    if (is_whole) {
      pairs[i] = _mm512_loadu_si512(at);
      prefetch(at + block_lines * lines.stride);
    } else {
      pairs[i] = i < count ? _mm512_maskz_loadu_epi16(mask, at) : _mm512_setzero_si512();
    }
  }
}

/// lanes[pair of k]: interleaved lines, of which each k has its 16 side by side.
template <bool is_whole>
inline void load_interleaved(const Lines& lines, std::int64_t first, std::int64_t k,
                             __m512i (&lanes)[16]) {
  const auto mask = static_cast<__mmask16>(first_elements(lines.count - first));
  const bf16* at = lines.data + k * lines.stride + first;
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i, at += 2 * lines.stride) {
    const __mmask16 even = is_whole ? 0xffff : k + 2 * i < lines.depth ? mask : 0;
    const __mmask16 odd = is_whole ? 0xffff : k + 2 * i + 1 < lines.depth ? mask : 0;
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(even, at));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(odd, at + lines.stride));
    lanes[i] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    if (is_whole) prefetch(at + tile_depth * lines.stride);
    if (is_whole) prefetch(at + (tile_depth + 1) * lines.stride);
  }
}

/// 16 x 16 of 32 bits.
inline void transpose(__m512i (&x)[16]) {
  __m512i y[16];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
    y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
    y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
    y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
    x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
  }
}

inline void store(const __m512i (&block)[16], char* at, std::int64_t step_bytes) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_store_si512(at + i * step_bytes, block[i]);
}

bool is_whole_block(const Lines& lines, std::int64_t first, std::int64_t k) {
  return lines.count - first >= block_lines && lines.depth - k >= tile_depth;
}

/// One block: [line][pair of k] for A, [pair of k][line] for B, `step_bytes` apart.
template <bool by_line, bool is_whole>
inline void pack_block(const Lines& lines, std::int64_t first, std::int64_t k, char* packed,
                       std::int64_t step_bytes) {
  __m512i block[16];
  if (lines.interleaved) {
    load_interleaved<is_whole>(lines, first, k, block);
    if (by_line) transpose(block);
    store(block, packed, step_bytes);
  } else {
    load_lines<is_whole>(lines, first, k, block);
    if (!by_line) transpose(block);
    store(block, packed, step_bytes);
  }
}

void pack_row_tile(const Lines& rows, std::int64_t first, std::int64_t k, char* packed) {
  constexpr std::int64_t step_bytes = 64;
  if (is_whole_block(rows, first, k)) {
    pack_block<true, true>(rows, first, k, packed, step_bytes);
  } else {
    pack_block<true, false>(rows, first, k, packed, step_bytes);
  }
}

/// 32 columns side by side, 32 k: the two rows of a pair are woven in two permutations.
void weave(const Lines& columns, std::int64_t first, std::int64_t k, char* packed) {
  alignas(64) static constexpr std::uint16_t lower[32] = {
      0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
      8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i low = _mm512_load_si512(lower);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const bf16* at = columns.data + k * columns.stride + first;
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i, at += 2 * columns.stride) {
    const __m512i even = _mm512_loadu_si512(at);
    const __m512i odd = _mm512_loadu_si512(at + columns.stride);
    _mm512_store_si512(packed + i * 128, _mm512_permutex2var_epi16(even, low, odd));
    _mm512_store_si512(packed + i * 128 + 64, _mm512_permutex2var_epi16(even, high, odd));
    prefetch(at + tile_depth * columns.stride);
    prefetch(at + (tile_depth + 1) * columns.stride);
  }
}

void pack_panel_tile(const Lines& columns, std::int64_t first, std::int64_t k, char* packed) {
  constexpr std::int64_t step_bytes = 128;
  const bool is_whole = columns.count - first >= panel_cols && columns.depth - k >= tile_depth;
  if (columns.interleaved && is_whole) return weave(columns, first, k, packed);
  const std::int64_t end = smaller(first + panel_cols, columns.count);
  for (std::int64_t col = first; col < end; col += block_lines, packed += 64) {
    if (is_whole_block(columns, col, k)) {
      pack_block<false, true>(columns, col, k, packed, step_bytes);
    } else {
      pack_block<false, false>(columns, col, k, packed, step_bytes);
    }
  }
}

/// Calls pack(first line, k, byte offset of the tile) along memory: k is the inner loop unless the
/// lines are interleaved.
template <class Pack>
void for_each_tile(const Lines& lines, std::int64_t group_lines, std::int64_t group_bytes,
                   const Pack& pack) {
  const std::int64_t num_tiles = (lines.depth + tile_depth - 1) / tile_depth;
  const std::int64_t num_groups = (lines.count + group_lines - 1) / group_lines;
  for (std::int64_t i = 0; i < num_tiles * num_groups; ++i) {
    const std::int64_t tile = lines.interleaved ? i / num_groups : i % num_tiles;
    const std::int64_t group = lines.interleaved ? i % num_groups : i / num_tiles;
    pack(group * group_lines, tile * tile_depth, (group * num_tiles + tile) * group_bytes);
  }
}

}  // namespace

void pack_rows(const Lines& rows, char* packed) {
  for_each_tile(rows, tile_rows, tile_bytes,
                [&](std::int64_t first, std::int64_t k, std::int64_t offset) {
                  pack_row_tile(rows, first, k, packed + offset);
                });
}

void pack_columns(const Lines& columns, char* packed) {
  for_each_tile(columns, panel_cols, panel_tile_bytes,
                [&](std::int64_t first, std::int64_t k, std::int64_t offset) {
                  pack_panel_tile(columns, first, k, packed + offset);
                });
}

}  // namespace tessera::kernel::packed
