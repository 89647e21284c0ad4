// SPDX-License-Identifier: Apache-2.0
// POSIX calls behind an export.
#include "output_directory.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "comm/agree.hpp"
#include "fault.hpp"
#include "tessera/checkpoint/hugging_face_writer.hpp"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_errno(const std::string& what) {
  fail(ErrorKind::file, "{}: {}", what, std::strerror(errno));
}

/// Refuses to put anything in the place of what is there already, but an empty directory.
void require_vacant(const fs::path& path, bool overwrite) {
  if (!fs::exists(fs::symlink_status(path))) return;
  if (!fs::is_directory(path))
    fail(ErrorKind::usage, "cannot export to {}: it is no directory", path.string());
  if (fs::is_empty(path)) return;
  if (!overwrite)
    fail(ErrorKind::usage, "{} exists and is not empty; --overwrite replaces it", path.string());
  constexpr std::array replaceable = {".safetensors", ".json", ".txt", ".model", ".jinja"};
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    const fs::path extension = entry.path().extension();
    const bool is_ours =
        entry.is_regular_file() &&
        std::find(replaceable.begin(), replaceable.end(), extension) != replaceable.end();
    if (!is_ours)
      fail(ErrorKind::usage,
           "{} holds '{}', which no export writes (it would be lost) move it away", path.string(),
           entry.path().filename().string());
  }
}

void require_space(const fs::path& path, std::int64_t needed_bytes) {
  const fs::path parent = path.parent_path();
  const std::optional<std::int64_t> free = free_bytes(parent);
  if (!free) fail_errno("cannot export to " + parent.string());
  if (*free >= needed_bytes) return;
  fail(
      ErrorKind::file,
      "cannot export to {}: it needs {:.3f} GiB and {:.3f} GiB are free (nothing has been written) "
      "free space or export elsewhere",
      path.string(), gib(needed_bytes), gib(*free));
}

void make_file(const fs::path& path, const OutputFileSpec& spec) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) fail_errno(path.string());
  int reason = reserve_bytes(descriptor, spec.bytes);
  if (reason == 0 && ::ftruncate(descriptor, spec.bytes) != 0) reason = errno;
  ::close(descriptor);
  if (reason != 0)
    fail(ErrorKind::file, "{}: {:.3f} GiB could not be reserved: {}", path.string(),
         gib(spec.bytes), std::strerror(reason));
  OutputFile(path, -1).write_at(0, std::as_bytes(std::span(spec.content)));
}

void fsync_directory(const fs::path& path) {
  if (!to_disk(path)) fail_errno("fsync of " + path.string());
}

/// Two directories change places in one step; false where the file system does not know how.
bool exchange(const fs::path& one, const fs::path& other) {
#ifdef RENAME_EXCHANGE
  if (!fault_injected("noexchange", 0))
    return ::renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0;
#endif
  return false;
}

/// A directory cannot be renamed over one that is not empty. They change places, so that a whole
/// one has the name at any time, or the old one steps aside first. It goes when the new name is on
/// disk.
void put_in_place(const fs::path& partial, const fs::path& path) {
  const fs::path replaced = path.string() + ".replaced";
  const bool has_old = fs::exists(path) && !fs::is_empty(path);
  const bool exchanged = has_old && exchange(partial, path);
  if (has_old && !exchanged) {
    fs::remove_all(replaced);
    fs::rename(path, replaced);
  }
  if (!exchanged) fs::rename(partial, path);
  fsync_directory(path.parent_path());
  if (has_old) fs::remove_all(exchanged ? partial : replaced);
}

/// Absolute and without a slash at the end, so that a suffix makes a sibling of it. A link to a
/// directory stands for that: its file system has the room, and no directory replaces a link.
fs::path plain_path(const fs::path& path) {
  if (path.empty()) fail(ErrorKind::usage, "the directory to export to has an empty name");
  std::error_code error;
  if (fs::is_directory(path, error)) {
    fs::path target = fs::canonical(path, error);
    if (!error) return target;
  }
  const fs::path plain = fs::absolute(path).lexically_normal();
  return plain.has_filename() ? plain : plain.parent_path();
}

}  // namespace

void require_export_target(const comm::Communicator& world, const fs::path& directory,
                           const ExportOptions& options) {
  comm::agreed(world, "look at the place of the export", [&] {
    if (world.rank() != 0) return;
    const fs::path path = plain_path(directory);
    require_vacant(path, options.overwrite);
    require_space(path, 0);
  });
}

OutputDirectory::OutputDirectory(const comm::Communicator& world, fs::path directory)
    : world_(world), path_(plain_path(directory)), partial_(path_.string() + ".partial") {}

OutputDirectory::~OutputDirectory() {
  std::error_code ignored;
  if (is_begun_) fs::remove_all(partial_, ignored);
}

void OutputDirectory::lay_out(std::span<const OutputFileSpec> files, bool overwrite) {
  comm::agreed(world_, "prepare export", [&] {
    if (world_.rank() != 0) return;
    require_vacant(path_, overwrite);
    std::int64_t needed_bytes = 0;
    for (const OutputFileSpec& file : files) needed_bytes += file.bytes;
    fs::remove_all(partial_);
    require_space(path_, needed_bytes);
    is_begun_ = true;
    fs::create_directory(partial_);
    for (const OutputFileSpec& file : files) make_file(partial_ / file.name, file);
  });
  comm::agreed(world_, "prepare export", [&] {
    if (::access(partial_.c_str(), R_OK | W_OK | X_OK) != 0)
      fail(ErrorKind::file,
           "{}: {} (every rank writes its part, so the directory must be shared by all nodes)",
           partial_.string(), std::strerror(errno));
  });
}

void OutputDirectory::commit(std::span<const OutputFileSpec> files) {
  comm::agreed(world_, "commit export", [&] {
    if (world_.rank() != 0) return;
    for (const OutputFileSpec& file : files) OutputFile(partial_ / file.name, -1).flush();
    fsync_directory(partial_);
    put_in_place(partial_, path_);
    is_begun_ = false;
  });
}

}  // namespace tessera::checkpoint
