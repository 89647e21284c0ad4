// SPDX-License-Identifier: Apache-2.0
// Carries out a read plan: files to shard, in bounded steps, each byte read once.
#pragma once

#include <exception>
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "comm/process_grid.hpp"
#include "input_file.hpp"
#include "read_plan.hpp"

namespace tessera::checkpoint {

/// Entries of the parameters in the tables that `options` name, so that all ranks sum the same
/// tensors, also those of which they read nothing. local.
void expect(const LoadOptions& options, std::span<const Parameter> parameters);

/// One load. An error of this rank is kept until the end: till then the rank takes part in all
/// exchanges with zeros, because the others wait for it.
class TensorLoader {
 public:
  TensorLoader(const comm::ProcessGrid& grid, const std::filesystem::path& directory,
               const ReadPlan& plan, std::span<float> shard, const LoadOptions& options);

  /// collective over grid.world(); errors are agreed.
  LoadReport run();

 private:
  void read_part(const PartRead& read);
  void read_plain(const PartRead& read);
  void read_mxfp4(const PartRead& read);
  void decode_mxfp4(const PartRead& read, std::int64_t first_block,
                    std::span<const std::byte> blocks, std::span<const std::byte> scales);
  void read_fp8(const PartRead& read);
  /// For what the shard has of the part: what was read and what is placed are the same.
  TensorHash hash_of(const PartRead& read) const;
  void read_turned(const ExchangedRead& read);
  void place_turned(const ExchangedRead& read, const Chunk& chunk, Range rows, TensorHash& hash);
  void read_exchanged(const ExchangedRead& read);
  void read_and_turn(const ExchangedRead& read, const Chunk& chunk);
  void turn(const TransposedRead& read, const Chunk& chunk);
  void read_rows(const TransposedRead& read, const Chunk& chunk, Range rows);
  void hash_turned(const ExchangedRead& read, const Chunk& chunk);
  void exchange(const ExchangedRead& read, std::int64_t round, TensorHash& placed);
  void place(const ExchangedRead& read, const Chunk& chunk, const std::byte* elements,
             TensorHash& placed);
  void read_file(const std::string& file, std::int64_t offset, std::span<std::byte> destination);
  std::span<float> destination(const PartRead& read) const {
    return shard_.subspan(std::size_t(read.shard_offset), std::size_t(read.num_elements));
  }
  /// The first send_bytes of the staging memory hold what leaves, the rest what is read or arrives.
  std::byte* landing(const TransposedRead& read) { return plan_.staging.get() + read.send_bytes(); }

  const comm::ProcessGrid& grid_;
  std::filesystem::path directory_;
  const ReadPlan& plan_;
  std::span<float> shard_;
  const LoadOptions& options_;
  std::map<std::string, InputFile> files_;
  std::exception_ptr error_;
  LoadReport report_;
};

}  // namespace tessera::checkpoint
