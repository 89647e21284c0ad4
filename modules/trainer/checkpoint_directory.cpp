// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <tessera/trainer/checkpoint_directory.hpp>

#include "base/error.hpp"
#include "comm/agree.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;

fs::path read_latest(const fs::path& directory) {
  std::ifstream file(directory / "latest");
  std::string name;
  if (!std::getline(file, name) || name.empty()) {
    fail(ErrorKind::file,
         "{} names no checkpoint to resume from (no file 'latest' in it); give a run's output "
         "directory "
         "or a Tessera file",
         directory.string());
  }
  return directory / fs::path(name).filename();
}

/// fsync of a file or directory; file systems that cannot do it for a directory say EINVAL.
bool to_disk(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY);
  if (descriptor < 0) return false;
  const bool done = ::fsync(descriptor) == 0 || errno == EINVAL;
  ::close(descriptor);
  return done;
}

}  // namespace

void make_directory(const comm::Communicator& world, const fs::path& directory) {
  comm::agreed(world, "make output directory", [&] {
    if (world.rank() != 0) return;
    std::error_code error;
    fs::create_directories(directory, error);
    if (error) fail(ErrorKind::file, "cannot create {}: {}", directory.string(), error.message());
  });
}

fs::path checkpoint_path(const fs::path& directory, std::int64_t step) {
  return directory / fmt::format("step-{:08}.h5", step);
}

void set_latest(const comm::Communicator& world, const fs::path& checkpoint) {
  comm::agreed(world, "name the latest checkpoint", [&] {
    if (world.rank() != 0) return;
    const fs::path latest = fs::absolute(checkpoint).parent_path() / "latest";
    const fs::path partial = latest.parent_path() / "latest.partial";
    std::ofstream file(partial);
    file << checkpoint.filename().string() << '\n';
    file.close();
    std::error_code error;
    if (file && to_disk(partial)) fs::rename(partial, latest, error);
    if (!file || error || !to_disk(latest.parent_path())) {
      fs::remove(partial, error);
      fail(ErrorKind::file, "cannot write {}", latest.string());
    }
  });
}

void forget_latest(const comm::Communicator& world, const fs::path& directory) {
  comm::agreed(world, "forget the earlier run", [&] {
    if (world.rank() != 0) return;
    std::error_code error;
    fs::remove(directory / "latest", error);
    if (error)
      fail(ErrorKind::file, "cannot remove {}: {}", (directory / "latest").string(),
           error.message());
  });
}

fs::path resume_path(const comm::Communicator& world, const fs::path& path) {
  const std::string found = comm::agreed(world, "find the checkpoint to resume from", [&] {
    if (world.rank() != 0) return std::string();
    return fs::is_directory(path) ? read_latest(path).string() : path.string();
  });
  return world.broadcast_string("checkpoint to resume from", found, 0);
}

}  // namespace tessera::trainer
