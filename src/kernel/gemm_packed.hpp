// SPDX-License-Identifier: Apache-2.0
// The packed bf16 product, and what an instruction set has to provide for it.
//
// Both operands are packed on the way, B in blocks that stay in L2 and serve all rows of A
// (GotoBLAS, doi:10.1145/1356052.1356053). So a weight is read once from memory, whichever its
// orientation; a packed copy of all weights would be written and read besides, and held. Packing
// costs a few percent of a product of 32 rows or more.
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
  const bf16* bias = nullptr;  ///< one element per column, or null

  Result at(std::int64_t row, std::int64_t col) const {
    const std::int64_t offset = row * stride + col;
    Result moved = *this;
    moved.data = is_bf16 ? static_cast<void*>(static_cast<bf16*>(data) + offset)
                         : static_cast<void*>(static_cast<float*>(data) + offset);
    if (bias != nullptr) moved.bias += col;
    return moved;
  }
};

/// Up to strip_rows packed rows times packed panels.
struct Strip {
  const char* a = nullptr;
  const char* b = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t num_tiles = 0;  ///< along k
  float* partial = nullptr;    ///< [rows, cols rounded up to panels]: sums between blocks of k
  Result c;
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
};

const Backend* amx();
const Backend* avx512();

/// Those that this program was compiled with, best first; not all need be available. local.
std::span<const Backend* const> backends();

/// C = A B or C += A B. local; host memory.
void product(const Backend& backend, const Lines& a, const Lines& b, const Result& c);

}  // namespace tessera::kernel::packed
