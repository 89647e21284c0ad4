// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/disk.hpp"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "fault.hpp"

namespace tessera::checkpoint {

std::optional<std::int64_t> free_bytes(const std::filesystem::path& directory) {
  struct statvfs status {};
  if (::statvfs(directory.c_str(), &status) != 0) return std::nullopt;
  if (fault_injected("diskfull", 0)) return 0;
  return std::int64_t(status.f_bavail) * std::int64_t(status.f_frsize);
}

int reserve_bytes(int descriptor, std::int64_t bytes) {
  if (bytes == 0 || ::fallocate(descriptor, 0, 0, bytes) == 0) return 0;
  return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? errno : 0;
}

bool to_disk(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool is_done = ::fsync(descriptor) == 0 || errno == EINVAL;
  const int reason = errno;
  ::close(descriptor);
  errno = reason;
  return is_done;
}

double gib(std::int64_t bytes) { return double(bytes) / double(1 << 30); }

OutputFile::OutputFile(const std::filesystem::path& path, int world_rank)
    : name_(path.string()),
      descriptor_(::open(path.c_str(), O_WRONLY | O_CLOEXEC)),
      is_full_(fault_injected("diskfull", world_rank)),
      is_unsynced_(fault_injected("unsynced", world_rank)) {
  if (descriptor_ < 0) fail(ErrorKind::file, "{}: {}", name_, std::strerror(errno));
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : name_(std::move(other.name_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      is_full_(other.is_full_),
      is_unsynced_(other.is_unsynced_) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write_at(std::int64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    if (is_full_) errno = ENOSPC;
    const ssize_t count = is_full_ ? -1 : ::pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail(ErrorKind::file, "writing {}: {}", name_, std::strerror(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += count;
  }
}

void OutputFile::flush() const {
  if (is_unsynced_) errno = EIO;
  if (is_unsynced_ || ::fsync(descriptor_) != 0)
    fail(ErrorKind::file, "fsync of {}: {}", name_, std::strerror(errno));
}

}  // namespace tessera::checkpoint
