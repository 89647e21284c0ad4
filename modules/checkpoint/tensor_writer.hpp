// SPDX-License-Identifier: Apache-2.0
// Puts a rank's slices of parameters where an export plan has them: narrowed, turned or as MXFP4,
// through one buffer.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "output_directory.hpp"
#include "tessera/checkpoint/export_plan.hpp"

namespace tessera::checkpoint {

/// All members are local.
class TensorWriter {
 public:
  /// The plan must outlive the writer. `directory` holds the files at their full size.
  TensorWriter(const ExportPlan& plan, std::filesystem::path directory, int world_rank);

  /// `values`: the slice's; `scales`: old scales of its blocks, or empty. Throws Error::file,
  /// Error::numeric for a value that the element type cannot hold, Error::internal for a slice that
  /// does not fit the plan.
  void write(const Slice& slice, std::span<const float> values,
             std::span<const std::uint8_t> scales);
  /// fsyncs the files that were written to. Throws Error::file.
  void flush() const;

  /// Of each tensor of the plan.
  const std::vector<std::int64_t>& written_bytes() const { return written_bytes_; }

 private:
  /// Of one expert, a range of its elements in Tessera's order.
  struct ExpertRange {
    std::int64_t expert = 0, begin = 0, end = 0;
  };

  void write_plain(const ExportPart& part, const Slice& slice, std::span<const float> values);
  void write_turned(std::size_t tensor, const ExpertRange& range, const float* values);
  void write_columns(std::size_t tensor, const ExpertRange& range, std::int64_t first_row,
                     std::int64_t end_row, const float* values);
  void write_mxfp4(const ExportPart& part, const Slice& slice, std::span<const float> values,
                   std::span<const std::uint8_t> scales);
  void convert(std::size_t tensor, const float* from, std::int64_t count, std::byte* to) const;
  void put(std::size_t tensor, std::int64_t offset_bytes, const std::byte* bytes,
           std::int64_t num_bytes);

  const ExportPlan& plan_;
  std::filesystem::path directory_;
  int world_rank_;
  std::vector<std::optional<OutputFile>> files_;  ///< opened by the first write
  std::vector<std::int64_t> written_bytes_;
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace tessera::checkpoint
