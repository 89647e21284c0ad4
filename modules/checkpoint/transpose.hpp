// SPDX-License-Identifier: Apache-2.0
// Reads an expert tensor that the file holds as [E, in, out] and Tessera as [E, out, in]. The ranks
// of a replica group hold together the same whole experts; they deal disjoint contiguous chunks of
// the file among themselves, turn each, and pass its elements on to their owners, so that each byte
// is read once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/block_distribution.hpp"
#include "base/parameter.hpp"
#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

/// A half-open range of elements.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};

/// Some rows (`in`) of one expert, all columns (`out`) of them or, where the buffer is small, a
/// part. Rows are whole blocks of the fingerprint, so that a turned chunk can be hashed.
struct Chunk {
  std::int64_t expert = 0;
  Range rows;
  Range columns;
  std::int64_t size() const { return rows.size() * columns.size(); }
};

/// The plan for one tensor, the same on all ranks of the replica group: which rank reads which
/// chunk in which round, and who owns what of it. Turned to [columns][rows], a chunk holds its
/// elements in the order of the global index, so each owner's part of it is contiguous.
class TransposedRead {
 public:
  /// `owned`: the slice of each rank of the group (empty ones too), ascending, together whole
  /// experts. Chunks are as large as `buffer_bytes` lets them be. Throws Error::internal if the
  /// slices do not fit together, Error::usage if the buffer is too small. local.
  TransposedRead(const TensorInfo& tensor, std::vector<Range> owned, std::int64_t buffer_bytes);

  std::int64_t num_rounds() const { return num_rounds_; }
  /// What `rank` of the group reads in that round; nothing towards the end on some ranks.
  std::optional<Chunk> chunk(int rank, std::int64_t round) const;
  /// Whether the chunk is one stretch of the file; else each of its rows is one.
  bool is_contiguous(const Chunk& chunk) const { return chunk.columns.size() == num_columns_; }
  /// Where row k of the chunk begins in its file [bytes].
  std::int64_t offset_bytes(const Chunk& chunk, std::int64_t k) const;
  /// The part of the turned chunk that `rank` owns.
  Range owned_part(const Chunk& chunk, int rank) const;
  /// Global index of element k of the turned chunk.
  std::int64_t global_index(const Chunk& chunk, std::int64_t k) const;

  const TensorInfo& tensor() const { return *tensor_; }
  std::int64_t element_bytes() const { return element_bytes_; }
  int num_ranks() const { return static_cast<int>(owned_.size()); }
  /// Staging memory [bytes]: turned chunks on their way out, and what is read or received.
  std::int64_t send_bytes() const;
  std::int64_t staging_bytes() const { return send_bytes() + landing_bytes_; }
  /// Bytes that `rank` reads from the file.
  std::int64_t planned_bytes(int rank) const;

 private:
  void deal(std::int64_t max_elements);
  std::int64_t largest_chunk() const {
    return row_pieces_.count(0) * block_ * column_pieces_.count(0);
  }
  std::int64_t most_received() const;
  std::int64_t elements_below(const Chunk& chunk, std::int64_t global_index) const;

  const TensorInfo* tensor_;
  std::int64_t element_bytes_;
  std::int64_t num_rows_, num_columns_;
  std::int64_t block_;  ///< rows that stay together
  std::vector<Range> owned_;
  std::int64_t first_expert_ = 0, num_experts_ = 0;
  BlockDistribution row_pieces_, column_pieces_;  ///< of blocks of rows; of columns
  BlockDistribution chunks_;
  std::int64_t num_rounds_ = 0;
  std::int64_t landing_bytes_ = 0;
};

/// Turns [rows][columns], whose rows begin `from_stride` elements apart, into [columns][rows],
/// whose rows begin `to_stride` apart; element_bytes is 2, 4 or 8. local.
void transpose(const std::byte* from, std::int64_t num_rows, std::int64_t num_columns,
               std::int64_t from_stride, std::int64_t element_bytes, std::byte* to,
               std::int64_t to_stride);

}  // namespace tessera::checkpoint
