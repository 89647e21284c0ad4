// SPDX-License-Identifier: Apache-2.0
// The packed product with AVX512-BF16, which multiplies pairs of k. Includes nothing whose inline
// functions other files could be linked to.
#include "kernel/gemm_avx512.hpp"

namespace tessera::kernel::packed {
namespace {

struct PairsOfTiles {
  template <bool is_packed, int num_rows, int num_vectors>
  static void add(const Block& block, __m512 (&sums)[num_rows][num_vectors]) {
    const std::int64_t row_bytes = row_bytes_of_a<is_packed>(block);
    constexpr std::int64_t a_tile_bytes = tile_bytes_of_a<is_packed>();
    const char *a = block.a, *b = block.b;
    for (std::int64_t t = 0; t < block.num_tiles; ++t, a += a_tile_bytes, b += panel_tile_bytes) {
      for (int r = 0; r < num_rows; ++r) {
        _mm_prefetch(a + r * row_bytes + prefetched_tiles * a_tile_bytes, _MM_HINT_T0);
      }
      prefetch(*block.ahead, block.lines_ahead);
#pragma GCC unroll 4
      for (int pair = 0; pair < 16; ++pair) {
        __m512bh columns[num_vectors];
        for (int v = 0; v < num_vectors; ++v) {
          columns[v] = reinterpret_cast<__m512bh>(_mm512_load_si512(b + pair * 128 + v * 64));
        }
        for_each_sum<num_rows, num_vectors>([&](int r, int v) {
          int two;
          __builtin_memcpy(&two, a + r * row_bytes + pair * 4, sizeof two);
          const auto row = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
          sums[r][v] = _mm512_dpbf16_ps(sums[r][v], row, columns[v]);
        });
      }
    }
  }
};

bool is_available() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

}  // namespace

const Backend* avx512_bf16() {
  static constexpr Backend backend{"AVX512-BF16", "avx512_bf16",          is_available, pack_rows,
                                   pack_columns,  multiply<PairsOfTiles>, finish,       256 << 10};
  return &backend;
}

}  // namespace tessera::kernel::packed
