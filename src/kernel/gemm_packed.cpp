// SPDX-License-Identifier: Apache-2.0
// The blocking of the packed product: blocks of rows and columns, packed where they are first
// needed.
#include "kernel/gemm_packed.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "base/polling.hpp"

namespace tessera::kernel::packed {
namespace {

constexpr std::int64_t a_block_bytes = 2 << 20;  // read once per block of B; beyond L2
constexpr std::int64_t packing_rows = 128;  // of A at a time: interleaved rows share cache lines
constexpr std::int64_t max_tiles = a_block_bytes / (packing_rows / tile_rows) / tile_bytes;
constexpr std::int64_t max_depth = max_tiles * tile_depth;

constexpr std::int64_t round_up(std::int64_t size, std::int64_t unit) {
  return (size + unit - 1) / unit * unit;
}

struct Free {
  void operator()(char* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<char, Free>;

Buffer allocate(std::int64_t size_bytes) {
  void* memory = std::aligned_alloc(cache_line, static_cast<std::size_t>(size_bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return Buffer(static_cast<char*>(memory));
}

/// Pages that no product touches cost nothing.
struct Buffers {
  Buffer a = allocate(a_block_bytes);
  Buffer b = allocate(max_b_block_bytes);
  // Sums are kept only if k has two blocks, then B has this many columns at most.
  Buffer partial = allocate(strip_rows * sizeof(float) * max_b_block_bytes / (17 * 2 * tile_depth));
};

const Buffers& buffers_of_thread() {
  thread_local const Buffers buffers;
  return buffers;
}

/// Rows of A that stay packed, columns of B that stay in L2. Of a B that is read once, as a weight
/// is by few rows, the next block comes into L2 beside the packed one.
struct Blocking {
  std::int64_t num_tiles, rows, cols;
  bool brings_next;

  Blocking(const Backend& backend, std::int64_t m, std::int64_t n, std::int64_t k)
      : num_tiles((k + tile_depth - 1) / tile_depth),
        brings_next(m < n && num_tiles * panel_tile_bytes <= backend.b_block_bytes) {
    const std::int64_t fitting_rows = a_block_bytes / (num_tiles * tile_bytes) * tile_rows;
    const std::int64_t block_bytes = brings_next ? backend.b_block_bytes : max_b_block_bytes;
    const std::int64_t fitting_cols = block_bytes / (num_tiles * panel_tile_bytes) * panel_cols;
    rows = std::min(fitting_rows / packing_rows * packing_rows, round_up(m, strip_rows));
    cols = std::min(fitting_cols, round_up(n, panel_cols));
  }
};

/// Lines and how they come near while `num_steps` tiles of strips times panels are multiplied.
Ahead ahead_of(const Lines& next, std::int64_t num_steps) {
  const std::int64_t length = next.interleaved ? next.count : next.depth;
  Ahead ahead{reinterpret_cast<const char*>(next.data), next.interleaved ? next.depth : next.count,
              length * std::int64_t{sizeof(bf16)}, next.stride * std::int64_t{sizeof(bf16)}};
  const std::int64_t num_lines = ahead.num_rows * ((ahead.row_bytes + cache_line - 1) / cache_line);
  ahead.lines_per_tile = (num_lines + num_steps - 1) / num_steps;
  return ahead;
}

std::int64_t num_steps(std::int64_t rows, std::int64_t cols, std::int64_t num_tiles) {
  return round_up(rows, strip_rows) / strip_rows * (round_up(cols, panel_cols) / panel_cols) *
         num_tiles;
}

/// Lines [first, first + size), or as many as there are.
Lines some_of(const Lines& lines, std::int64_t first, std::int64_t size) {
  return lines.part(first, std::clamp<std::int64_t>(lines.count - first, 0, size));
}

float* partial_sums(const Buffers& buffers) {
  return reinterpret_cast<float*>(buffers.partial.get());
}

/// All rows of a block of A, packed here if `packs`, times a block of B.
void multiply_block(const Backend& backend, const Lines& a, bool packs, std::int64_t cols,
                    std::int64_t num_tiles, const Buffers& buffers, const Result& c, Ahead ahead) {
  const std::int64_t row_bytes = num_tiles * tile_bytes / tile_rows;
  for (std::int64_t begin = 0; begin < a.count; begin += packing_rows) {
    poll_now_and_then();
    const std::int64_t end = std::min(begin + packing_rows, a.count);
    if (packs) {
      backend.pack_rows(a.part(begin, end - begin), buffers.a.get() + begin * row_bytes);
    }
    for (std::int64_t row = begin; row < end; row += strip_rows) {
      const StripRows rows{buffers.a.get() + row * row_bytes, tile_bytes / tile_rows, tile_bytes,
                           num_tiles * tile_bytes};
      backend.multiply({rows, buffers.b.get(), std::min(strip_rows, end - row), cols, num_tiles,
                        partial_sums(buffers), c.at(row, 0), &ahead});
    }
  }
}

/// Depth at most max_depth.
void product_of_blocks(const Backend& backend, const Lines& a, const Lines& b, const Result& c) {
  const Buffers& buffers = buffers_of_thread();
  const Blocking blocking(backend, a.count, b.count, a.depth);
  for (std::int64_t row = 0; row < a.count; row += blocking.rows) {
    const Lines rows = some_of(a, row, blocking.rows);
    for (std::int64_t col = 0; col < b.count; col += blocking.cols) {
      const Lines cols = some_of(b, col, blocking.cols);
      const Ahead ahead = blocking.brings_next
                              ? ahead_of(some_of(b, col + blocking.cols, blocking.cols),
                                         num_steps(rows.count, cols.count, blocking.num_tiles))
                              : Ahead{};
      backend.pack_columns(cols, buffers.b.get());
      multiply_block(backend, rows, col == 0, cols.count, blocking.num_tiles, buffers,
                     c.at(row, col), ahead);
    }
  }
}

/// The same without packing A, whose rows are contiguous and of whole tiles.
void product_of_rows_in_place(const Backend& backend, const Lines& a, const Lines& b,
                              const Result& c) {
  const Buffers& buffers = buffers_of_thread();
  const Blocking blocking(backend, a.count, b.count, a.depth);
  const std::int64_t row_bytes = a.stride * std::int64_t{sizeof(bf16)};
  for (std::int64_t col = 0; col < b.count; col += blocking.cols) {
    poll_now_and_then();
    const Lines cols = some_of(b, col, blocking.cols);
    backend.pack_columns(cols, buffers.b.get());
    Ahead ahead = ahead_of(some_of(a, strip_rows, a.count),
                           num_steps(a.count - strip_rows, cols.count, blocking.num_tiles));
    for (std::int64_t row = 0; row < a.count; row += strip_rows) {
      const StripRows rows{reinterpret_cast<const char*>(a.data + row * a.stride), row_bytes,
                           tile_bytes / tile_rows, tile_rows * row_bytes};
      backend.multiply({rows, buffers.b.get(), std::min(strip_rows, a.count - row), cols.count,
                        blocking.num_tiles, partial_sums(buffers), c.at(row, col), &ahead});
    }
  }
}

/// Parts of a very long k one after the other into f32.
void product_of_parts(const Backend& backend, const Lines& a, const Lines& b, Result c) {
  for (std::int64_t k = 0; k < a.depth; k += max_depth) {
    const std::int64_t depth = std::min(max_depth, a.depth - k);
    product_of_blocks(backend, a.depth_part(k, depth), b.depth_part(k, depth), c);
    c.accumulates = true;
    c.bias = nullptr;
  }
}

/// Sums of a very long k stay f32 until they are complete.
void rounded_product_of_parts(const Backend& backend, const Lines& a, const Lines& b,
                              const Result& c) {
  std::vector<float> sums(static_cast<std::size_t>(packing_rows * b.count));
  for (std::int64_t row = 0; row < a.count; row += packing_rows) {
    const Lines rows = a.part(row, std::min(packing_rows, a.count - row));
    product_of_parts(backend, rows, b, {.data = sums.data(), .stride = b.count, .bias = c.bias});
    for (std::int64_t i = 0; i < rows.count; ++i) {
      auto* const line = static_cast<bf16*>(c.at(row + i, 0).data);
      const float* const sum = sums.data() + i * b.count;
      for (std::int64_t j = 0; j < b.count; ++j) {
        line[j] = bf16(c.accumulates ? static_cast<float>(line[j]) + sum[j] : sum[j]);
      }
    }
  }
}

/// Whether no cache line of C has elements beside it.
bool has_whole_lines(const Result& c, std::int64_t cols) {
  constexpr std::int64_t line_elements = cache_line / std::int64_t{sizeof(float)};
  return !c.is_bf16 && cols % line_elements == 0 && c.stride % line_elements == 0 &&
         reinterpret_cast<std::uintptr_t>(c.data) % cache_line == 0;
}

/// Whether C^T = B^T A^T is quicker: then the rows of B^T are read once, as all rows of A stay in
/// L2. With a short k turning the result would cost more than packing.
bool changes_places(const Backend& backend, const Lines& a, const Lines& b, const Result& c) {
  constexpr std::int64_t least_depth = 512;
  if (b.interleaved || b.depth % tile_depth != 0 || c.bypasses_caches) return false;
  const std::int64_t packed_bytes = round_up(a.count, panel_cols) * b.depth * 2;
  return b.depth >= least_depth && b.depth <= max_depth && b.count > strip_rows &&
         packed_bytes <= backend.b_block_bytes;
}

}  // namespace

std::span<const Backend* const> backends() {
#ifdef TESSERA_PACKED_PRODUCT
  // Intel's processors multiply f32 at twice the rate of pairs of bf16, AMD's the other way round.
  // By the maker rather than by measuring, so that a run repeats bit for bit.
  static const std::array<const Backend*, 3> all =
      __builtin_cpu_is("intel") ? std::array{amx(), avx512_f32(), avx512_bf16()}
                                : std::array{amx(), avx512_bf16(), avx512_f32()};
  return all;
#else
  return {};
#endif
}

void product(const Backend& backend, const Lines& a, const Lines& b, Result c) {
  c.bypasses_caches = c.bypasses_caches && a.depth <= max_depth && has_whole_lines(c, b.count);
  if (changes_places(backend, a, b, c)) {
    c.is_transposed = true;
    product_of_rows_in_place(backend, b, a, c);
  } else if (a.depth <= max_depth) {
    product_of_blocks(backend, a, b, c);
  } else if (c.is_bf16) {
    rounded_product_of_parts(backend, a, b, c);
  } else {
    product_of_parts(backend, a, b, c);
  }
  backend.finish();
}

}  // namespace tessera::kernel::packed
