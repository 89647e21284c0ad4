// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share: an input as a file, and what may become of garbage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace tessera::fuzz {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

[[noreturn]] inline void stop(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

/// A file in TMPDIR, which run.sh makes for the target, as long as the object lives.
class InputFile {
 public:
  /// `content`, and `hole_bytes` zeros behind it that take no room.
  explicit InputFile(std::string_view content, std::uint64_t hole_bytes = 0)
      : path_(std::filesystem::temp_directory_path() / "fuzz_input") {
    std::ofstream(path_, std::ios::binary) << content;
    if (hole_bytes > 0) std::filesystem::resize_file(path_, content.size() + hole_bytes);
  }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile() { std::filesystem::remove(path_); }

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Runs a parser. Garbage is refused with an Error that puts the blame on the file; anything else
/// escapes and is a finding.
template <class Parse>
void expect_read_or_refused(const Parse& parse) {
  try {
    parse();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::internal) throw;
  }
}

}  // namespace tessera::fuzz
