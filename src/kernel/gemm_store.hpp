// SPDX-License-Identifier: Apache-2.0
// What the AVX-512 and the AMX product share: the blocks of k, and how sums come into C. To be
// included only by files that are compiled for AVX512-BF16: everything here has internal linkage,
// so that no other file can come by these instructions.
#pragma once

#include "kernel/gemm_packed.hpp"

#ifdef __AVX512BF16__
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
    _mm256_mask_storeu_epi16(at, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sums)));
  } else {
    float* const at = static_cast<float*>(c.data) + offset;
    if (c.accumulates) sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), sums);
    _mm512_mask_storeu_ps(at, mask, sums);
  }
}

}  // namespace
}  // namespace tessera::kernel::packed

#endif
