// SPDX-License-Identifier: Apache-2.0
// A file opened for positioned reads, whose errors name the file and the reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace tessera::checkpoint {

/// Owns a file descriptor. All members are local.
class InputFile {
 public:
  /// Throws Error::file. `world_rank` selects the fault hook `unreadable`.
  InputFile(const std::filesystem::path& path, int world_rank);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;
  ~InputFile();

  std::int64_t size_bytes() const { return size_bytes_; }
  /// Fills `destination` from byte `offset` on, through interrupted and short reads, and returns
  /// the bytes that the reads returned. Throws Error::file on an I/O error or if the file ends
  /// before.
  std::int64_t read_at(std::int64_t offset, std::span<std::byte> destination) const;

 private:
  std::string name_;
  int descriptor_ = -1;
  std::int64_t size_bytes_ = 0;
};

}  // namespace tessera::checkpoint
