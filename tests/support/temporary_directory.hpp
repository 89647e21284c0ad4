// SPDX-License-Identifier: Apache-2.0
// A directory that all ranks share for the length of a test.
#pragma once

#include <filesystem>

#include "comm/communicator.hpp"

namespace tessera::test {

/// Made by rank 0 under $TMPDIR (or /tmp); removed with all it holds when rank 0's object goes, so
/// let the ranks meet (barrier) after the last use. collective over communicator; the destructor is
/// local.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const comm::Communicator& communicator);
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
  bool owner_ = false;
};

}  // namespace tessera::test
