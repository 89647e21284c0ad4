// SPDX-License-Identifier: Apache-2.0
#include "support/temporary_directory.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "comm/agree.hpp"

namespace tessera::test {
namespace {

std::string make_directory() {
  const char* parent = std::getenv("TMPDIR");
  std::string name =
      std::string(parent != nullptr && *parent != '\0' ? parent : "/tmp") + "/tessera-test-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) {
    fail(ErrorKind::file, "cannot make {}: {}", name, std::strerror(errno));
  }
  return name;
}

}  // namespace

TemporaryDirectory::TemporaryDirectory(const comm::Communicator& communicator)
    : owner_(communicator.rank() == 0) {
  const std::string name = comm::agreed(communicator, "temporary directory",
                                        [&] { return owner_ ? make_directory() : std::string(); });
  path_ = communicator.broadcast_string("temporary directory", name, 0);
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  if (owner_) std::filesystem::remove_all(path_, ignored);
}

}  // namespace tessera::test
