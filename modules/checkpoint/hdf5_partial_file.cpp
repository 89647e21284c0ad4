// SPDX-License-Identifier: Apache-2.0
// POSIX calls behind an atomic save.
#include "hdf5_partial_file.hpp"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.hpp"
#include "comm/agree.hpp"
#include "fault.hpp"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : descriptor_(::open(path.c_str(), flags, 0666)) {
    if (descriptor_ < 0) fail(ErrorKind::file, "{}: {}", path.string(), std::strerror(errno));
  }
  ~Descriptor() { ::close(descriptor_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

fs::path directory_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

double gib(std::int64_t bytes) { return double(bytes) / double(1 << 30); }

void check_free_space(const fs::path& path, std::int64_t needed_bytes) {
  struct statvfs status {};
  if (::statvfs(directory_of(path).c_str(), &status) != 0) {
    fail(ErrorKind::file, "cannot save {}: {}", path.string(), std::strerror(errno));
  }
  const std::int64_t free_bytes =
      fault_injected("diskfull", 0) ? 0
                                    : std::int64_t(status.f_bavail) * std::int64_t(status.f_frsize);
  if (free_bytes >= needed_bytes) return;
  fail(ErrorKind::file,
       "cannot save {}: it needs {:.3f} GiB and {:.3f} GiB are free (nothing has been written, an "
       "older "
       "file of that name is untouched) free space or save elsewhere",
       path.string(), gib(needed_bytes), gib(free_bytes));
}

// Not every file system can reserve; what it says then is no error.
void reserve_blocks(const fs::path& path, std::int64_t bytes) {
  if (bytes == 0) return;
  const Descriptor file(partial_path(path), O_WRONLY);
  if (::fallocate(file.get(), 0, 0, bytes) == 0) return;
  const int reason = errno;
  if (reason != ENOSPC && reason != EDQUOT && reason != EFBIG) return;
  // A part may have been reserved: HDF5 needs room to close the file.
  if (::ftruncate(file.get(), 0) != 0)
    log_rank(LogLevel::warning, "cannot shorten the partial file");
  fail(ErrorKind::file,
       "cannot save {}: {:.3f} GiB could not be reserved: {} (an older file of that name is "
       "untouched) free space or save elsewhere",
       path.string(), gib(bytes), std::strerror(reason));
}

void fsync_path(const fs::path& path, int flags) {
  const Descriptor file(path, flags);
  // Some file systems cannot fsync a directory and say EINVAL; their renames are ordered without
  // it.
  if (::fsync(file.get()) != 0 && errno != EINVAL) {
    fail(ErrorKind::file, "fsync of {}: {}", path.string(), std::strerror(errno));
  }
}

}  // namespace

fs::path partial_path(const fs::path& path) { return path.string() + ".partial"; }

void prepare_partial(const comm::Communicator& world, const fs::path& path,
                     std::int64_t needed_bytes) {
  const fs::path partial = partial_path(path);
  comm::agreed(world, "prepare checkpoint", [&] {
    if (world.rank() != 0) return;
    if (fs::is_directory(path))
      fail(ErrorKind::file, "cannot save {}: it is a directory", path.string());
    if (::unlink(partial.c_str()) != 0 && errno != ENOENT) {
      fail(ErrorKind::file, "cannot remove {}: {}", partial.string(), std::strerror(errno));
    }
    check_free_space(path, needed_bytes);
    const Descriptor created(partial, O_WRONLY | O_CREAT | O_EXCL);
    reserve_blocks(path, needed_bytes);
  });
  comm::agreed(world, "prepare checkpoint", [&] {
    if (::access(partial.c_str(), R_OK | W_OK) == 0) return;
    fail(ErrorKind::file,
         "{}: {} (every rank writes its part, so the directory must be shared by all nodes)",
         partial.string(), std::strerror(errno));
  });
}

void reserve_partial(const comm::Communicator& world, const fs::path& path,
                     std::int64_t file_bytes) {
  comm::agreed(world, "reserve checkpoint", [&] {
    if (world.rank() == 0) reserve_blocks(path, file_bytes);
  });
}

void commit_partial(const comm::Communicator& world, const fs::path& path) {
  comm::agreed(world, "commit checkpoint", [&] {
    if (world.rank() != 0) return;
    const fs::path partial = partial_path(path);
    fsync_path(partial, O_WRONLY);
    if (::rename(partial.c_str(), path.c_str()) != 0) {
      fail(ErrorKind::file, "cannot rename {} to {}: {}", partial.string(), path.string(),
           std::strerror(errno));
    }
    fsync_path(directory_of(path), O_RDONLY | O_DIRECTORY);
  });
}

}  // namespace tessera::checkpoint
