// SPDX-License-Identifier: Apache-2.0
// What the AVX-512 and the AMX product share: the blocks of k, and how sums come into C. To be
// included only by files that are compiled for AVX-512: everything here has internal linkage, so
// that no other file can come by these instructions.
#pragma once

#include "kernel/gemm_packed.hpp"

#ifdef __AVX512DQ__
#include <immintrin.h>

namespace tessera::kernel::packed {
namespace {

/// Blocks of k of about the same length.
inline std::int64_t tiles_per_block(std::int64_t num_tiles, std::int64_t max_tiles) {
  const std::int64_t num_blocks = (num_tiles + max_tiles - 1) / max_tiles;
  return (num_tiles + num_blocks - 1) / num_blocks;
}

inline __mmask16 first_lanes(std::int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffffu : (1u << count) - 1u);
}

inline __m512 widen(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

/// To nearest even; NaN stays NaN.
#ifdef __AVX512BF16__
inline __m256i narrow(__m512 sums) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sums)); }
#else
inline __m256i narrow(__m512 sums) {
  const __m512i bits = _mm512_castps_si512(sums);
  const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i half = _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(sums, sums, _CMP_UNORD_Q);
  const __m512i rounded =
      _mm512_mask_or_epi32(_mm512_add_epi32(bits, half), is_nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}
#endif

/// Sixteen sums of one row, the lanes of `mask` only, to c.
inline void store_sums(const Result& c, std::int64_t row, std::int64_t col, __mmask16 mask,
                       __m512 sums) {
  const std::int64_t offset = row * c.stride + col;
  if (c.bias != nullptr) {
    sums = _mm512_add_ps(widen(_mm256_maskz_loadu_epi16(mask, c.bias + col)), sums);
  }
  if (c.is_bf16) {
    bf16* const at = static_cast<bf16*>(c.data) + offset;
    if (c.accumulates) sums = _mm512_add_ps(widen(_mm256_maskz_loadu_epi16(mask, at)), sums);
    _mm256_mask_storeu_epi16(at, mask, narrow(sums));
  } else {
    float* const at = static_cast<float*>(c.data) + offset;
    if (c.bypasses_caches) return _mm512_stream_ps(at, sums);
    if (c.accumulates) sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), sums);
    _mm512_mask_storeu_ps(at, mask, sums);
  }
}

/// Four rows of one column to c, which is transposed, so that they lie side by side.
inline void store_four(const Result& c, std::int64_t offset, __mmask8 mask, __m128 sums) {
  if (c.is_bf16) {
    bf16* const at = static_cast<bf16*>(c.data) + offset;
    if (c.accumulates) {
      const __m128i old = _mm_cvtepu16_epi32(_mm_maskz_loadu_epi16(mask, at));
      sums = _mm_add_ps(_mm_castsi128_ps(_mm_slli_epi32(old, 16)), sums);
    }
    _mm_mask_storeu_epi16(at, mask, _mm256_castsi256_si128(narrow(_mm512_castps128_ps512(sums))));
  } else {
    float* const at = static_cast<float*>(c.data) + offset;
    if (c.accumulates) sums = _mm_add_ps(_mm_maskz_loadu_ps(mask, at), sums);
    _mm_mask_storeu_ps(at, mask, sums);
  }
}

/// Sixteen columns of up to four rows to c, which is transposed.
inline void store_columns(const Result& c, std::int64_t row, std::int64_t col,
                          std::int64_t num_rows, std::int64_t num_cols, __m512 (&sums)[4]) {
  if (c.bias != nullptr) {
    for (std::int64_t r = 0; r < num_rows; ++r) {
      const int bits = c.bias[row + r].bits << 16;
      sums[r] = _mm512_add_ps(_mm512_castsi512_ps(_mm512_set1_epi32(bits)), sums[r]);
    }
  }
  const auto mask = static_cast<__mmask8>((1u << num_rows) - 1u);
  const __m512 low01 = _mm512_unpacklo_ps(sums[0], sums[1]);
  const __m512 low23 = _mm512_unpacklo_ps(sums[2], sums[3]);
  const __m512 high01 = _mm512_unpackhi_ps(sums[0], sums[1]);
  const __m512 high23 = _mm512_unpackhi_ps(sums[2], sums[3]);
  const __m512 columns[4] = {
      _mm512_shuffle_ps(low01, low23, 0x44), _mm512_shuffle_ps(low01, low23, 0xee),
      _mm512_shuffle_ps(high01, high23, 0x44), _mm512_shuffle_ps(high01, high23, 0xee)};
  alignas(64) float four[4][16];
  for (int i = 0; i < 4; ++i) _mm512_store_ps(four[i], columns[i]);
  for (std::int64_t i = 0; i < 16 && i < num_cols; ++i) {
    store_four(c, (col + i) * c.stride + row, mask, _mm_load_ps(four[i % 4] + i / 4 * 4));
  }
}

/// The next `num_lines` lines of what will be packed.
inline void prefetch(Ahead& ahead, std::int64_t num_lines) {
  for (std::int64_t i = 0; i < num_lines && ahead.num_rows > 0; ++i) {
    _mm_prefetch(ahead.row + ahead.offset_bytes, _MM_HINT_T1);
    ahead.offset_bytes += cache_line;
    if (ahead.offset_bytes < ahead.row_bytes) continue;
    ahead.offset_bytes = 0;
    ahead.row += ahead.stride_bytes;
    --ahead.num_rows;
  }
}

}  // namespace
}  // namespace tessera::kernel::packed

#endif
