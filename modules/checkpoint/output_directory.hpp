// SPDX-License-Identifier: Apache-2.0
// The file-system side of an export: a directory whose files exist at their full size before any
// rank writes a tensor, and which takes its name in one step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "comm/communicator.hpp"
#include "tessera/checkpoint/disk.hpp"

namespace tessera::checkpoint {

struct OutputFileSpec {
  std::string name;
  std::string content;     ///< its first bytes
  std::int64_t bytes = 0;  ///< its size
};

class OutputDirectory {
 public:
  /// Nothing happens on disk yet. local.
  OutputDirectory(const comm::Communicator& world, std::filesystem::path directory);
  /// Without commit(), rank 0 removes what lay_out() made. local.
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Where the files are until commit(): `<path>.partial`, which can be renamed to `path`.
  const std::filesystem::path& partial() const { return partial_; }

  /// Rank 0 checks that the directory may be made and that there is room, removes a stale partial
  /// one, and makes the files, their blocks reserved where the file system can; then each rank
  /// checks that it sees them. Only rank 0's `files` count. collective over world; errors are
  /// agreed.
  void lay_out(std::span<const OutputFileSpec> files, bool overwrite);
  /// Rank 0 fsyncs the files that hold no tensors and the directory, and renames it. collective
  /// over world; errors are agreed.
  void commit(std::span<const OutputFileSpec> files);

 private:
  const comm::Communicator& world_;
  std::filesystem::path path_, partial_;
  bool is_begun_ = false;
};

}  // namespace tessera::checkpoint
