// SPDX-License-Identifier: Apache-2.0
// What loading and saving ask of a file system, through POSIX calls. All of it is local.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

namespace tessera::checkpoint {

/// Bytes that a user may still write to the file system of `directory`, or nothing with errno set.
/// The fault hook `diskfull` of rank 0 makes it 0.
std::optional<std::int64_t> free_bytes(const std::filesystem::path& directory);

/// Reserves the first `bytes` of an open file. 0, or the errno of a lack of room: not every file
/// system can reserve, and what it says then is no error.
int reserve_bytes(int descriptor, std::int64_t bytes);

/// fsync of a file or directory; false with errno set. Some file systems cannot do it for a
/// directory and say EINVAL; their renames are ordered without it.
bool to_disk(const std::filesystem::path& path);

double gib(std::int64_t bytes);

/// A file that exists already, opened for positioned writes.
class OutputFile {
 public:
  /// Throws Error::file. `world_rank` selects the fault hooks `diskfull` and `unsynced`.
  OutputFile(const std::filesystem::path& path, int world_rank);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  /// All of it, through interrupted and short writes. Throws Error::file.
  void write_at(std::int64_t offset, std::span<const std::byte> bytes) const;
  /// fsync. Throws Error::file.
  void flush() const;
  int descriptor() const { return descriptor_; }

 private:
  std::string name_;
  int descriptor_ = -1;
  bool is_full_ = false, is_unsynced_ = false;  ///< by a fault hook
};

}  // namespace tessera::checkpoint
