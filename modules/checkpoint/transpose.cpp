// SPDX-License-Identifier: Apache-2.0
#include "transpose.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/contract.hpp"
#include "base/error.hpp"
#include "tessera/checkpoint/fingerprint.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Eight words of two bytes, a register of any processor that matters.
using Words = std::uint16_t __attribute__((vector_size(16)));

Words load(const std::byte* from) {
  Words words;
  std::memcpy(&words, from, sizeof words);
  return words;
}

/// Turns 8 x 8 words: neighbours of one, two and four are interleaved. Strides in bytes.
void transpose_8x8(const std::byte* from, std::int64_t from_stride, std::byte* to,
                   std::int64_t to_stride) {
  std::array<Words, 8> a, b;
  for (int k = 0; k < 8; ++k) a[k] = load(from + k * from_stride);
  for (int k = 0; k < 4; ++k) {
    b[2 * k] = __builtin_shufflevector(a[k], a[k + 4], 0, 8, 1, 9, 2, 10, 3, 11);
    b[2 * k + 1] = __builtin_shufflevector(a[k], a[k + 4], 4, 12, 5, 13, 6, 14, 7, 15);
  }
  for (int k = 0; k < 4; ++k) {
    a[2 * k] = __builtin_shufflevector(b[k], b[k + 4], 0, 8, 1, 9, 2, 10, 3, 11);
    a[2 * k + 1] = __builtin_shufflevector(b[k], b[k + 4], 4, 12, 5, 13, 6, 14, 7, 15);
  }
  for (int k = 0; k < 4; ++k) {
    b[2 * k] = __builtin_shufflevector(a[k], a[k + 4], 0, 8, 1, 9, 2, 10, 3, 11);
    b[2 * k + 1] = __builtin_shufflevector(a[k], a[k + 4], 4, 12, 5, 13, 6, 14, 7, 15);
  }
  for (int k = 0; k < 8; ++k) std::memcpy(to + k * to_stride, &b[k], sizeof(Words));
}

/// A part of a matrix, word by word.
template <class Word>
void transpose_words(const std::byte* from, std::int64_t from_stride, Range rows, Range columns,
                     std::byte* to, std::int64_t to_stride) {
  constexpr auto width = std::int64_t(sizeof(Word));
  for (std::int64_t column = columns.begin; column < columns.end; ++column)
    for (std::int64_t row = rows.begin; row < rows.end; ++row)
      std::memcpy(to + (column * to_stride + row) * width,
                  from + (row * from_stride + column) * width, sizeof(Word));
}

template <class Word>
void transpose_matrix(const std::byte* from, std::int64_t num_rows, std::int64_t num_columns,
                      std::int64_t from_stride, std::byte* to, std::int64_t to_stride) {
  // Square tiles keep both the rows read and the rows written in the first cache; a tile's rows are
  // one line of it.
  constexpr std::int64_t tile = 32;
  for (std::int64_t column0 = 0; column0 < num_columns; column0 += tile)
    for (std::int64_t row0 = 0; row0 < num_rows; row0 += tile) {
      const Range rows{row0, std::min(row0 + tile, num_rows)};
      const Range columns{column0, std::min(column0 + tile, num_columns)};
      if (sizeof(Word) != 2 || rows.size() < tile || columns.size() < tile) {
        transpose_words<Word>(from, from_stride, rows, columns, to, to_stride);
        continue;
      }
      // Rows of a power of two share one set of the cache, which holds eight of them: each is done
      // with before the next come.
      for (std::int64_t row = row0; row < rows.end; row += 8)
        for (std::int64_t column = column0; column < columns.end; column += 8)
          transpose_8x8(from + 2 * (row * from_stride + column), 2 * from_stride,
                        to + 2 * (column * to_stride + row), 2 * to_stride);
    }
}

/// Gives empty slices the place between their neighbours and checks that all follow one another.
Range chain(std::vector<Range>& owned, std::int64_t expert_size, const std::string& name) {
  Range whole;
  bool any = false;
  for (Range& range : owned) {
    if (range.size() == 0) {
      range = {whole.end, whole.end};
      continue;
    }
    if (!any) whole = {range.begin, range.begin};
    any = true;
    if (range.begin != whole.end)
      fail(ErrorKind::internal, "{}: the replica group's slices do not follow one another at {}",
           name, range.begin);
    whole.end = range.end;
  }
  if (expert_size > 0 && (whole.begin % expert_size != 0 || whole.end % expert_size != 0))
    fail(ErrorKind::internal, "{}: the replica group's slices [{}, {}) are not whole experts", name,
         whole.begin, whole.end);
  return whole;
}

}  // namespace

TransposedRead::TransposedRead(const TensorInfo& tensor, std::vector<Range> owned,
                               std::int64_t buffer_bytes)
    : tensor_(&tensor),
      element_bytes_(std::int64_t(size_of(tensor.dtype))),
      num_rows_(tensor.shape.at(1)),
      num_columns_(tensor.shape.at(2)),
      block_(fingerprint_block({num_rows_})),
      owned_(std::move(owned)) {
  const std::int64_t expert_size = num_rows_ * num_columns_;
  const Range whole = chain(owned_, expert_size, tensor.name);
  if (whole.size() == 0) return;
  first_expert_ = whole.begin / expert_size;
  num_experts_ = whole.size() / expert_size;
  // Large chunks: where one is a whole expert, its turned rows follow one another in the shard.
  std::int64_t max_elements =
      std::min(buffer_bytes / (2 * element_bytes_),
               std::max(ceil_div(whole.size(), num_ranks()), block_ * num_columns_));
  // How much one rank receives depends on how chunks and slices meet: try, then halve.
  for (; max_elements > 0; max_elements /= 2) {
    deal(max_elements);
    if (staging_bytes() <= buffer_bytes) return;
  }
  fail(ErrorKind::usage,
       "a staging buffer of {} bytes is too small for {} on {} ranks (its elements are exchanged "
       "through it) give at least {} bytes",
       buffer_bytes, tensor.name, num_ranks(), 128 + element_bytes_ * block_ * (num_ranks() + 1));
}

void TransposedRead::deal(std::int64_t max_elements) {
  const std::int64_t num_blocks = num_rows_ / block_;
  row_pieces_ = {num_blocks,
                 std::min(num_blocks, ceil_div(num_rows_ * num_columns_, max_elements))};
  column_pieces_ = {num_columns_, 1};
  // Pieces differ by one block of rows at most; the largest must fit too.
  while (row_pieces_.num_ranks < num_blocks && largest_chunk() > max_elements)
    ++row_pieces_.num_ranks;
  if (row_pieces_.count(0) == 1)
    column_pieces_.num_ranks =
        ceil_div(num_columns_, std::max<std::int64_t>(max_elements / block_, 1));
  chunks_ = {num_experts_ * row_pieces_.num_ranks * column_pieces_.num_ranks, num_ranks()};
  num_rounds_ = chunks_.count(0);
  landing_bytes_ = element_bytes_ * std::max(largest_chunk(), most_received());
}

std::int64_t TransposedRead::most_received() const {
  std::int64_t most = 0;
  for (std::int64_t round = 0; round < num_rounds_; ++round) {
    std::vector<std::int64_t> received(owned_.size());
    for (int from = 0; from < num_ranks(); ++from)
      if (const auto piece = chunk(from, round))
        for (int to = 0; to < num_ranks(); ++to)
          received[std::size_t(to)] += owned_part(*piece, to).size();
    most = std::max(most, *std::max_element(received.begin(), received.end()));
  }
  return most;
}

std::optional<Chunk> TransposedRead::chunk(int rank, std::int64_t round) const {
  // Each rank reads one stretch of the file, so mostly of the experts that it owns itself.
  if (round >= chunks_.count(rank)) return std::nullopt;
  const std::int64_t index = chunks_.begin(rank) + round;
  const std::int64_t column_piece = index % column_pieces_.num_ranks;
  const std::int64_t row_piece = index / column_pieces_.num_ranks % row_pieces_.num_ranks;
  const std::int64_t expert = index / column_pieces_.num_ranks / row_pieces_.num_ranks;
  return Chunk{first_expert_ + expert,
               {row_pieces_.begin(row_piece) * block_, row_pieces_.end(row_piece) * block_},
               {column_pieces_.begin(column_piece), column_pieces_.end(column_piece)}};
}

std::int64_t TransposedRead::offset_bytes(const Chunk& chunk, std::int64_t k) const {
  const std::int64_t row = chunk.expert * num_rows_ + chunk.rows.begin + k;
  return tensor_->offset_bytes + (row * num_columns_ + chunk.columns.begin) * element_bytes_;
}

std::int64_t TransposedRead::elements_below(const Chunk& chunk, std::int64_t global_index) const {
  const std::int64_t expert_size = num_rows_ * num_columns_;
  const std::int64_t inside =
      std::clamp<std::int64_t>(global_index - chunk.expert * expert_size, 0, expert_size);
  const std::int64_t column = inside / num_rows_, row = inside % num_rows_;
  if (column < chunk.columns.begin) return 0;
  if (column >= chunk.columns.end) return chunk.size();
  return (column - chunk.columns.begin) * chunk.rows.size() +
         std::clamp(row, chunk.rows.begin, chunk.rows.end) - chunk.rows.begin;
}

Range TransposedRead::owned_part(const Chunk& chunk, int rank) const {
  const Range& range = owned_[std::size_t(rank)];
  return {elements_below(chunk, range.begin), elements_below(chunk, range.end)};
}

std::int64_t TransposedRead::global_index(const Chunk& chunk, std::int64_t k) const {
  const std::int64_t column = chunk.columns.begin + k / chunk.rows.size();
  const std::int64_t row = chunk.rows.begin + k % chunk.rows.size();
  return (chunk.expert * num_columns_ + column) * num_rows_ + row;
}

std::int64_t TransposedRead::send_bytes() const {
  if (num_rounds_ == 0) return 0;
  constexpr std::int64_t alignment = 64;  // of what follows it in the staging memory
  return ceil_div(largest_chunk() * element_bytes_, alignment) * alignment;
}

std::int64_t TransposedRead::planned_bytes(int rank) const {
  std::int64_t elements = 0;
  for (std::int64_t round = 0; round < num_rounds_; ++round)
    if (const auto piece = chunk(rank, round)) elements += piece->size();
  return elements * element_bytes_;
}

void transpose(const std::byte* from, std::int64_t num_rows, std::int64_t num_columns,
               std::int64_t from_stride, std::int64_t element_bytes, std::byte* to,
               std::int64_t to_stride) {
  const auto turn = [&](auto word) {
    transpose_matrix<decltype(word)>(from, num_rows, num_columns, from_stride, to, to_stride);
  };
  switch (element_bytes) {
    case 2: return turn(std::uint16_t());
    case 4: return turn(std::uint32_t());
    case 8: return turn(std::uint64_t());
  }
  TESSERA_EXPECT(element_bytes == 2 || element_bytes == 4 || element_bytes == 8);
}

}  // namespace tessera::checkpoint
