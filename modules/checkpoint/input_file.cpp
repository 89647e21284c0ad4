// SPDX-License-Identifier: Apache-2.0
#include "input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "fault.hpp"

namespace tessera::checkpoint {

InputFile::InputFile(const std::filesystem::path& path, int world_rank) : name_(path.string()) {
  const bool refused = fault_injected("unreadable", world_rank);
  // O_NONBLOCK: a FIFO without a writer would otherwise keep open() waiting before it is refused.
  descriptor_ = refused ? -1 : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0)
    fail(ErrorKind::file,
         "cannot open {}: {} (its tensors cannot be read) check that it exists and is readable on "
         "every node",
         name_, std::strerror(refused ? EACCES : errno));
  struct stat status {};
  const bool known = ::fstat(descriptor_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    fail(ErrorKind::file, "{} is not a regular file (tensors are read from any position in it)",
         name_);
  }
  size_bytes_ = status.st_size;
}

InputFile::InputFile(InputFile&& other) noexcept
    : name_(std::move(other.name_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_bytes_(other.size_bytes_) {}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::int64_t InputFile::read_at(std::int64_t offset, std::span<std::byte> destination) const {
  std::int64_t done = 0;
  const auto wanted = static_cast<std::int64_t>(destination.size());
  while (done < wanted) {
    const ssize_t got = ::pread(descriptor_, destination.data() + done,
                                static_cast<std::size_t>(wanted - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail(ErrorKind::file, "cannot read {} bytes at byte {} of {}: {}", wanted - done,
           offset + done, name_, std::strerror(errno));
    if (got == 0)
      fail(ErrorKind::file,
           "{} ends before byte {} but holds tensors up to byte {} at least (it became shorter "
           "after "
           "its header was checked) is it still being written or copied?",
           name_, offset + done + 1, offset + wanted);
    done += got;
  }
  return done;
}

}  // namespace tessera::checkpoint
