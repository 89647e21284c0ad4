// SPDX-License-Identifier: Apache-2.0
// The packed product with AMX-BF16: 32 rows x 32 columns of sums in four tile registers. Includes
// nothing whose inline functions other files could be linked to.
#include <cpuid.h>
#include <immintrin.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernel/gemm_pack.hpp"
#include "kernel/gemm_packed.hpp"
#include "kernel/gemm_store.hpp"

namespace tessera::kernel::packed {
namespace {

// Tile registers: sums 0 1 over 2 3, rows of A 4 over 5, columns of B 6 beside 7.

constexpr std::int64_t max_tiles = 16;  // of a block of k: the strip's part stays in L1

struct alignas(64) Configuration {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

/// A tile register has as many rows as are needed: fewer rows take less time.
void configure(std::int64_t num_rows) {
  Configuration configuration;
  const auto upper = static_cast<std::uint8_t>(num_rows < 16 ? num_rows : 16);
  const auto lower = static_cast<std::uint8_t>(num_rows - upper);
  const std::uint8_t rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
  for (int i = 0; i < 8; ++i) {
    configuration.rows[i] = rows[i];
    configuration.row_bytes[i] = rows[i] == 0 ? 0 : 64;
  }
  asm volatile("" ::"r"(&configuration) : "memory");  // GCC's intrinsic names the first bytes only
  _tile_loadconfig(&configuration);
}

/// Loading a configuration takes longer than a small product, so it is kept between strips.
thread_local std::int64_t configured_rows = 0;

void configure_once(std::int64_t num_rows) {
  if (configured_rows == num_rows) return;
  configure(num_rows);
  configured_rows = num_rows;
}

/// One strip times one panel, over one block of k.
struct Block {
  StripRows a;
  const char* b;
  std::int64_t num_tiles;
  const float* sums_before;  ///< null at the first block of k
  float* sums_after;
  std::int64_t sums_stride_bytes;
  Ahead* ahead;
};

constexpr std::int64_t lower_rows(const Block& block) { return 16 * block.sums_stride_bytes / 4; }

template <bool has_lower, bool has_right>
void load_sums(const Block& block) {
  const float* const sums = block.sums_before;
  const std::int64_t stride = block.sums_stride_bytes;
  if (sums == nullptr) {
    _tile_zero(0);
    if (has_right) _tile_zero(1);
    if (has_lower) _tile_zero(2);
    if (has_lower && has_right) _tile_zero(3);
  } else {
    _tile_loadd(0, sums, stride);
    if (has_right) _tile_loadd(1, sums + 16, stride);
    if (has_lower) _tile_loadd(2, sums + lower_rows(block), stride);
    if (has_lower && has_right) _tile_loadd(3, sums + lower_rows(block) + 16, stride);
  }
}

template <bool has_lower, bool has_right>
void store_sums(const Block& block) {
  float* const sums = block.sums_after;
  const std::int64_t stride = block.sums_stride_bytes;
  _tile_stored(0, sums, stride);
  if (has_right) _tile_stored(1, sums + 16, stride);
  if (has_lower) _tile_stored(2, sums + lower_rows(block), stride);
  if (has_lower && has_right) _tile_stored(3, sums + lower_rows(block) + 16, stride);
}

template <bool has_lower, bool has_right>
void multiply_block(const Block& block) {
  constexpr std::int64_t panel_stride = 128;
  load_sums<has_lower, has_right>(block);
  const std::int64_t row_bytes = block.a.row_bytes;
  const char *a = block.a.data, *b = block.b;
  for (std::int64_t t = 0; t < block.num_tiles;
       ++t, a += block.a.tile_bytes, b += panel_tile_bytes) {
    prefetch(*block.ahead, block.ahead->lines_per_tile);
    _tile_loadd(4, a, row_bytes);
    _tile_loadd(6, b, panel_stride);
    _tile_dpbf16ps(0, 4, 6);
    if (has_right) {
      _tile_loadd(7, b + 64, panel_stride);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (has_lower) {
      _tile_loadd(5, a + block.a.lower_bytes, row_bytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if (has_lower && has_right) _tile_dpbf16ps(3, 5, 7);
  }
  store_sums<has_lower, has_right>(block);
}

void multiply_block(bool has_lower, bool has_right, const Block& block) {
  if (has_lower) {
    has_right ? multiply_block<true, true>(block) : multiply_block<true, false>(block);
  } else {
    has_right ? multiply_block<false, true>(block) : multiply_block<false, false>(block);
  }
}

/// The finished sums of a strip and a panel, into C transposed.
void put_transposed(const Strip& strip, std::int64_t col, const float* sums,
                    std::int64_t sums_stride) {
  for (std::int64_t row = 0; row < strip.rows; row += 4) {
    const std::int64_t num_rows = strip.rows - row < 4 ? strip.rows - row : 4;
    for (std::int64_t first = col; first < strip.cols && first < col + panel_cols; first += 16) {
      __m512 four[4];
      for (std::int64_t r = 0; r < 4; ++r) {
        const float* const at = sums + (row + r) * sums_stride + first - col;
        four[r] = r < num_rows ? _mm512_load_ps(at) : _mm512_setzero_ps();
      }
      store_columns(strip.c, row, first, num_rows, strip.cols - first, four);
    }
  }
}

/// The finished sums of a strip and a panel.
void put(const Strip& strip, std::int64_t col, const float* sums, std::int64_t sums_stride) {
  const std::int64_t cols = strip.cols - col;
  if (strip.c.is_transposed) return put_transposed(strip, col, sums, sums_stride);
  for (std::int64_t row = 0; row < strip.rows; ++row, sums += sums_stride) {
    store_sums(strip.c, row, col, first_lanes(cols), _mm512_load_ps(sums));
    if (cols <= 16) continue;
    store_sums(strip.c, row, col + 16, first_lanes(cols - 16), _mm512_load_ps(sums + 16));
  }
}

/// Tiles [first, first + step) of k, for one panel.
void multiply_panel(const Strip& strip, std::int64_t first, std::int64_t step, std::int64_t col) {
  alignas(64) float finished[strip_rows * panel_cols];
  const std::int64_t left = strip.num_tiles - first;
  const std::int64_t stride = left > step || first > 0
                                  ? (strip.cols + panel_cols - 1) / panel_cols * panel_cols
                                  : panel_cols;
  float* const sums = stride == panel_cols ? finished : strip.partial + col;
  multiply_block(strip.rows > tile_rows, strip.cols - col > 16,
                 {{strip.a.data + first * strip.a.tile_bytes, strip.a.row_bytes, strip.a.tile_bytes,
                   strip.a.lower_bytes},
                  strip.b + (col / panel_cols * strip.num_tiles + first) * panel_tile_bytes,
                  left < step ? left : step,
                  first == 0 ? nullptr : sums,
                  sums,
                  stride * 4,
                  strip.ahead});
  if (left <= step) put(strip, col, sums, stride);
}

void multiply(const Strip& strip) {
  configure_once(strip.rows);
  const std::int64_t step = tiles_per_block(strip.num_tiles, max_tiles);
  for (std::int64_t first = 0; first < strip.num_tiles; first += step) {
    for (std::int64_t col = 0; col < strip.cols; col += panel_cols) {
      multiply_panel(strip, first, step, col);
    }
  }
}

/// Without it each switch to another thread would save the tiles.
void finish() {
  _mm_sfence();
  _tile_release();
  configured_rows = 0;
}

/// The processor has AMX, the system keeps the tiles of a thread, and lets this process use them.
bool is_available() {
#ifdef __linux__
  constexpr unsigned amx_bits = 1u << 22 | 1u << 24;           // edx: AMX-BF16, AMX-TILE
  constexpr unsigned tile_state = 1u << 17 | 1u << 18;         // xcr0
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!avx512_bf16()->is_available()) return false;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & amx_bits) != amx_bits) {
    return false;
  }
  unsigned xcr0 = 0, upper = 0;
  asm volatile("xgetbv" : "=a"(xcr0), "=d"(upper) : "c"(0));
  return (xcr0 & tile_state) == tile_state &&
         syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

}  // namespace

const Backend* amx() {
  static constexpr Backend backend{"AMX-BF16",   "amx",    is_available, pack_rows,
                                   pack_columns, multiply, finish,       max_b_block_bytes};
  return &backend;
}

}  // namespace tessera::kernel::packed
