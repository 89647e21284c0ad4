// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <tessera/trainer/run_lock.hpp>

#include "base/error.hpp"
#include "base/log.hpp"
#include "comm/agree.hpp"
#include "lock_owner.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;

fs::path lock_path(const fs::path& directory) { return directory / "lock"; }

std::string read_text(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// Whether the file was not there and is now, with `content`; one system call decides between runs.
bool create(const fs::path& path, const std::string& content) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0 && errno == EEXIST) return false;
  const bool is_open = descriptor >= 0;
  const bool written = is_open && ::write(descriptor, content.data(), content.size()) ==
                                      static_cast<ssize_t>(content.size());
  const int reason = errno;
  if (is_open) ::close(descriptor);
  if (written) return true;
  if (is_open) ::unlink(path.c_str());
  fail(ErrorKind::file, "cannot write {} (which keeps other runs out of that directory): {}",
       path.string(), std::strerror(reason));
}

/// Puts a stale lock aside. Of two runs that find it stale one may come late and catch the other's
/// new lock: that one is put back.
bool put_aside(const fs::path& path, const std::string& stale) {
  const fs::path aside = fmt::format("{}.{}.stale", path.string(), ::getpid());
  std::error_code error;
  fs::rename(path, aside, error);
  if (error) return false;
  const bool is_the_stale_one = read_text(aside) == stale;
  if (!is_the_stale_one) fs::create_hard_link(aside, path, error);
  fs::remove(aside, error);
  return is_the_stale_one;
}

[[noreturn]] void refuse(const fs::path& directory, const LockOwner& owner) {
  fail(
      ErrorKind::file,
      "{} is in use by {} (two runs in one directory would overwrite each other's checkpoints); "
      "wait for it, stop it or give another --output; only if it certainly runs no more, remove {}",
      directory.string(), describe(owner), lock_path(directory).string());
}

}  // namespace

RunLock::RunLock(const comm::Communicator& world, fs::path directory)
    : directory_(std::move(directory)) {
  if (world.rank() == 0) made_directory_ = !fs::exists(directory_);
  make_directory(world, directory_);
  comm::agreed(world, "lock the output directory", [&] {
    if (world.rank() == 0) take();
  });
}

void RunLock::take() {
  const fs::path path = lock_path(directory_);
  const std::string content = to_json(own_lock_owner()) + '\n';
  constexpr int num_tries = 3;  // another run may come in between, but not for ever
  for (int k = 0; k < num_tries; ++k) {
    if (create(path, content)) {
      content_ = content;
      return;
    }
    const std::string found = read_text(path);
    const LockOwner owner = parse_lock_owner(found);
    const std::string why = why_gone(owner);
    if (why.empty()) refuse(directory_, owner);
    if (put_aside(path, found))
      log_info("{}: the lock of {} is stale ({}) and is taken over", directory_.string(),
               describe(owner), why);
  }
  refuse(directory_, parse_lock_owner(read_text(path)));
}

RunLock::~RunLock() {
  if (content_.empty()) return;
  std::error_code error;
  if (read_text(lock_path(directory_)) == content_) fs::remove(lock_path(directory_), error);
  if (made_directory_) fs::remove(directory_, error);  // which fails where anything is in it
}

void RunLock::require(const comm::Communicator& world) const {
  comm::agreed(world, "look at the lock", [&] {
    if (world.rank() != 0) return;
    const std::string found = read_text(lock_path(directory_));
    if (found == content_) return;
    fail(
        ErrorKind::file, "{} is not this run's any more: {} (nothing is written there); {}",
        directory_.string(),
        found.empty() ? "its lock is gone" : "it is in use by " + describe(parse_lock_owner(found)),
        "resume from its latest checkpoint");
  });
}

}  // namespace tessera::trainer
