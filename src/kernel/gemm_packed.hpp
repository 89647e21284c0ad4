// SPDX-License-Identifier: Apache-2.0
// The packed bf16 product, and what an instruction set has to provide for it.
//
// Both operands are packed on the way, B in blocks that stay in L2 and serve all rows of A
// (GotoBLAS, doi:10.1145/1356052.1356053). So a weight is read once from memory, whichever its
// orientation; a packed copy of all weights would be written and read besides, and held.
//
// Where rows of A are few and columns of B are contiguous along k (tokens times a weight [out, in])
// the operands change places: C^T = B^T A^T. The weight's rows are then multiplied where they lie,
// and only the tokens are packed.
//
// All instruction sets read the same formats, k padded with zeros to whole tiles:
//   A: tiles of 16 rows x 32 k, a row 64 bytes; the tiles of 16 rows follow one another along k;
//   B: panels of 32 columns, [k / 2][32 columns][2].
// An element of C is summed over k in an order that depends on k alone, so a row has the same bits
// whatever rows are beside it.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.hpp"

namespace tessera::kernel::packed {

inline constexpr std::int64_t tile_rows = 16;
inline constexpr std::int64_t tile_depth = 32;
inline constexpr std::int64_t tile_bytes = 1024;
inline constexpr std::int64_t panel_cols = 32;
inline constexpr std::int64_t panel_tile_bytes = 2048;  ///< 32 k of a panel
inline constexpr std::int64_t strip_rows = 32;          ///< of A, multiplied at a time
inline constexpr std::int64_t max_b_block_bytes = 512 << 10;
inline constexpr std::int64_t cache_line = 64;

/// Rows of A or columns of B, `depth` elements each. Element (line, k) is data[line * stride + k],
/// or data[k * stride + line] where lines are interleaved.
struct Lines {
  const bf16* data = nullptr;
  std::int64_t count = 0;
  std::int64_t depth = 0;
  std::int64_t stride = 0;
  bool interleaved = false;

  Lines part(std::int64_t first, std::int64_t size) const {
    return {data + first * (interleaved ? 1 : stride), size, depth, stride, interleaved};
  }
  Lines depth_part(std::int64_t first, std::int64_t size) const {
    return {data + first * (interleaved ? stride : 1), count, size, stride, interleaved};
  }
};

/// Where C is, what happens to its old content, and what is added to each row.
struct Result {
  void* data = nullptr;  ///< float or bf16
  std::int64_t stride = 0;
  bool is_bf16 = false;
  bool accumulates = false;
  const bf16* bias = nullptr;    ///< one element per column (per row if transposed), or null
  bool bypasses_caches = false;  ///< if it has whole cache lines of f32: it is not read soon

  bool is_transposed = false;  ///< element (row, col) is data[col * stride + row]

  Result at(std::int64_t row, std::int64_t col) const {
    const std::int64_t offset = is_transposed ? col * stride + row : row * stride + col;
    Result moved = *this;
    moved.data = is_bf16 ? static_cast<void*>(static_cast<bf16*>(data) + offset)
                         : static_cast<void*>(static_cast<float*>(data) + offset);
    if (bias != nullptr) moved.bias += is_transposed ? row : col;
    return moved;
  }
};

/// What is packed or multiplied next, as it lies in memory: brought into L2 line by line between
/// multiplications, so that nothing waits for memory.
struct Ahead {
  const char* row = nullptr;
  std::int64_t num_rows = 0;  ///< that are left
  std::int64_t row_bytes = 0;
  std::int64_t stride_bytes = 0;
  std::int64_t offset_bytes = 0;    ///< of the next line, in its row
  std::int64_t lines_per_tile = 0;  ///< with each tile of k of a strip times a panel
};

/// Where a strip of A is: packed, or rows as they lie in memory.
struct StripRows {
  const char* data = nullptr;
  std::int64_t row_bytes = 0;    ///< from a row to the next, within 16
  std::int64_t tile_bytes = 0;   ///< from 32 k to the next
  std::int64_t lower_bytes = 0;  ///< from the first 16 rows to the next
};

/// Up to strip_rows rows times packed panels.
struct Strip {
  StripRows a;
  const char* b = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t num_tiles = 0;  ///< along k
  float* partial = nullptr;    ///< [rows, cols rounded up to panels]: sums between blocks of k
  Result c;
  Ahead* ahead = nullptr;
};

/// What an instruction set provides.
struct Backend {
  const char* name;
  const char* option;      ///< its name in TESSERA_GEMM
  bool (*is_available)();  ///< processor and system; asks the system for AMX
  void (*pack_rows)(const Lines& rows, char* packed);
  void (*pack_columns)(const Lines& columns, char* packed);
  void (*multiply)(const Strip& strip);
  void (*finish)();  ///< after the last strip of a product
  std::int64_t
      b_block_bytes;  ///< of packed B, at most max_b_block_bytes: with the next one half of L2
};

const Backend* amx();
const Backend* avx512_bf16();
const Backend* avx512_f32();

/// Those that this program was compiled with, the best for this processor first; not all need be
/// available. local.
std::span<const Backend* const> backends();

/// C = A B or C += A B. local; host memory.
void product(const Backend& backend, const Lines& a, const Lines& b, Result c);

}  // namespace tessera::kernel::packed
