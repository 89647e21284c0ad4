// SPDX-License-Identifier: Apache-2.0
// POSIX calls behind an atomic save.
#include "hdf5_partial_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "base/log.hpp"
#include "comm/agree.hpp"
#include "tessera/checkpoint/disk.hpp"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr int no_rank = -1;  ///< no fault is injected

fs::path directory_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

void check_free_space(const fs::path& path, std::int64_t needed_bytes) {
  const std::optional<std::int64_t> free = free_bytes(directory_of(path));
  if (!free) fail(ErrorKind::file, "cannot save {}: {}", path.string(), std::strerror(errno));
  if (*free >= needed_bytes) return;
  fail(ErrorKind::file,
       "cannot save {}: it needs {:.3f} GiB and {:.3f} GiB are free (nothing has been written, an "
       "older "
       "file of that name is untouched) free space or save elsewhere",
       path.string(), gib(needed_bytes), gib(*free));
}

void create_empty(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) fail(ErrorKind::file, "{}: {}", path.string(), std::strerror(errno));
  ::close(descriptor);
}

void reserve_blocks(const fs::path& path, std::int64_t bytes) {
  const OutputFile file(partial_path(path), no_rank);
  const int reason = reserve_bytes(file.descriptor(), bytes);
  if (reason == 0) return;
  // A part may have been reserved: HDF5 needs room to close the file.
  if (::ftruncate(file.descriptor(), 0) != 0)
    log_rank(LogLevel::warning, "cannot shorten the partial file");
  fail(ErrorKind::file,
       "cannot save {}: {:.3f} GiB could not be reserved: {} (an older file of that name is "
       "untouched) free space or save elsewhere",
       path.string(), gib(bytes), std::strerror(reason));
}

void fsync_path(const fs::path& path) {
  if (!to_disk(path)) fail(ErrorKind::file, "fsync of {}: {}", path.string(), std::strerror(errno));
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
    create_empty(partial);
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
  const fs::path partial = partial_path(path);
  comm::agreed(world, "flush checkpoint", [&] { OutputFile(partial, world.rank()).flush(); });
  comm::agreed(world, "commit checkpoint", [&] {
    if (world.rank() != 0) return;
    if (::rename(partial.c_str(), path.c_str()) != 0) {
      fail(ErrorKind::file, "cannot rename {} to {}: {}", partial.string(), path.string(),
           std::strerror(errno));
    }
    fsync_path(directory_of(path));
  });
}

}  // namespace tessera::checkpoint
