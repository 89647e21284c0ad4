// SPDX-License-Identifier: Apache-2.0
// Tokens to train on, cut into sequences of equal length, from HDF5, .npy or flat files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "comm/communicator.hpp"

namespace tessera::trainer {

class TokenColumn;  // one array of integers in a file: token_data_column.hpp

/// Element type of a flat file: by its extension (.u16, .u32, else u16) or as said.
enum class FlatDtype { by_extension, u16, u32 };

/// Where labels or a mask come from. Both empty: there are none. An empty path with a dataset means
/// the tokens' own HDF5 file; an empty dataset means "labels" or "mask" in an HDF5 file at `path`.
struct TokenColumnOptions {
  std::filesystem::path path;
  std::string dataset;
  bool given() const { return !path.empty() || !dataset.empty(); }
};

struct TokenDataOptions {
  std::int64_t sequence_length = 0;  ///< S; 0: the width of two-dimensional data
  bool stream_is_one_row = false;    ///< without S, one-dimensional data is a single sequence
  std::int64_t vocab_size = 0;       ///< ids outside [0, vocab_size) are errors; 0: not checked
  std::string dataset;               ///< of an HDF5 file; empty: the first one named "tokens"
  FlatDtype flat_dtype = FlatDtype::by_extension;
  TokenColumnOptions labels;  ///< the tokens' shape; kernel's ignored label is -100
  TokenColumnOptions mask;  ///< the tokens' shape, integers or booleans; 0: the label becomes -100
};

/// A file of token ids as num_sequences() rows of sequence_length().
/// - FILE.h5: an integer dataset, with one dimension (a stream) or two (rows are sequences).
/// - FILE.npy: the same, integers of 8 to 64 bits, little endian, C order; memory-mapped.
/// - any other file: a stream of little-endian uint16 or uint32; memory-mapped. The file must not
/// be
///   shortened while it is open.
/// A stream of n tokens gives floor(n / S) rows without overlap. Rows of length S give S - 1
/// targets: the loss shifts labels against logits by one.
class TokenData {
 public:
  /// Every rank opens the file; all must find the same extent. collective over world.
  /// Errors are agreed: file (cannot be opened), format (not a token file, another shape for labels
  /// or mask), usage (no sequence length for a stream, a row width that differs from it, no
  /// sequence).
  static TokenData open(const comm::Communicator& world, const std::filesystem::path& path,
                        const TokenDataOptions& options);
  TokenData(TokenData&&) noexcept;
  TokenData& operator=(TokenData&&) noexcept;
  ~TokenData();

  std::int64_t sequence_length() const { return sequence_length_; }
  std::int64_t num_sequences() const { return num_sequences_; }
  /// "FILE: 61 sequences of 64 tokens (u16 stream of 3923 tokens)". local.
  const std::string& description() const { return description_; }

  /// One sequence. tokens, labels [S] i64; labels are the tokens unless the options name others,
  /// -100 where masked. local. Throws Error::format naming the position of a bad id, Error::file.
  void read(std::int64_t sequence_idx, std::span<std::int64_t> tokens,
            std::span<std::int64_t> labels) const;

  /// Reads everything once, each rank its share of the sequences, so that a bad id is found before
  /// the first step. Throws what read() throws, agreed; the first bad position of the file is
  /// named. collective over world.
  void validate(const comm::Communicator& world) const;

 private:
  TokenData();
  void open_columns(const std::filesystem::path& path, const TokenDataOptions& options);
  void read_rows(std::int64_t sequence_idx, std::span<std::int64_t> tokens,
                 std::span<std::int64_t> labels) const;
  void check_ids(const TokenColumn& column, std::int64_t sequence_idx,
                 std::span<const std::int64_t> ids, bool may_be_ignored) const;

  std::unique_ptr<TokenColumn> tokens_;
  std::unique_ptr<TokenColumn> labels_;  ///< null: the tokens
  std::unique_ptr<TokenColumn> mask_;    ///< null: nothing is masked
  std::int64_t vocab_size_ = 0;
  std::int64_t sequence_length_ = 0;
  std::int64_t num_sequences_ = 0;
  std::string description_;
};

}  // namespace tessera::trainer
