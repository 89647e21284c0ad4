// SPDX-License-Identifier: Apache-2.0
// How fast the ranks together write and read one file, each its own part.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <tessera/study/measure.hpp>

#include "base/block_distribution.hpp"
#include "base/error.hpp"
#include "base/seconds_since.hpp"
#include "comm/agree.hpp"

namespace tessera::study {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t temporary_bytes = std::int64_t{64} << 20;
constexpr std::int64_t largest_read = std::int64_t{1} << 30;  ///< of a given file, its beginning
constexpr std::size_t piece_bytes = 4 << 20;

/// A file descriptor that closes itself.
struct Descriptor {
  int number = -1;
  Descriptor(const fs::path& path, int flags) : number(::open(path.c_str(), flags, 0600)) {
    if (number < 0) {
      fail(ErrorKind::file, "cannot open {}: {}", path.string(), std::strerror(errno));
    }
  }
  ~Descriptor() { ::close(number); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

/// Writes [begin, end) and waits for the disk.
void write_part(const fs::path& path, std::int64_t begin, std::int64_t end) {
  const Descriptor file(path, O_WRONLY | O_CREAT | O_CLOEXEC);
  const std::vector<char> piece(piece_bytes, 'x');
  while (begin < end) {
    const auto wanted = static_cast<std::size_t>(
        std::min<std::int64_t>(end - begin, static_cast<std::int64_t>(piece.size())));
    const ssize_t count = ::pwrite(file.number, piece.data(), wanted, begin);
    if (count <= 0) {
      fail(ErrorKind::file, "cannot write {}: {}", path.string(), std::strerror(errno));
    }
    begin += count;
  }
  if (::fsync(file.number) != 0) {
    fail(ErrorKind::file, "cannot write {}: {}", path.string(), std::strerror(errno));
  }
}

/// A name among the temporary files, the same on all ranks.
fs::path temporary_path(const comm::Communicator& world) {
  const auto made = fs::temp_directory_path() / fmt::format("tessera-bench-{}", ::getpid());
  return world.broadcast_string("temporary file", made.string(), 0);
}

/// Reads [begin, end); returns the seconds.
double read_part(const fs::path& path, std::int64_t begin, std::int64_t end, bool forgets_first) {
  const Descriptor file(path, O_RDONLY | O_CLOEXEC);
  if (forgets_first) ::posix_fadvise(file.number, begin, end - begin, POSIX_FADV_DONTNEED);
  std::vector<char> piece(piece_bytes);
  const auto start = std::chrono::steady_clock::now();
  while (begin < end) {
    const auto wanted = static_cast<std::size_t>(
        std::min<std::int64_t>(end - begin, static_cast<std::int64_t>(piece.size())));
    const ssize_t count = ::pread(file.number, piece.data(), wanted, begin);
    if (count <= 0)
      fail(ErrorKind::file, "cannot read {}: {}", path.string(), std::strerror(errno));
    begin += count;
  }
  return seconds_since(start);
}

/// GB/s of all ranks together.
double read_rate(const comm::Communicator& world, const fs::path& path, bool forgets_first) {
  const auto size = comm::agreed(world, "look at the file", [&] {
    return std::min(static_cast<std::int64_t>(fs::file_size(path)), largest_read);
  });
  const BlockDistribution parts{size, world.size()};
  const double seconds = comm::agreed(world, "read the file", [&] {
    return read_part(path, parts.begin(world.rank()), parts.end(world.rank()), forgets_first);
  });
  const double slowest = world.all_reduce_value("reading", seconds, comm::ReduceOp::max);
  return slowest > 0.0 ? static_cast<double>(size) / slowest / 1e9 : 0.0;
}

}  // namespace

std::vector<MachineRow> measure_file(const comm::Communicator& world, const fs::path& file) {
  fs::path path = file;
  if (file.empty()) {
    path = temporary_path(world);
    comm::agreed(world, "write the temporary file", [&] {
      if (world.rank() == 0) write_part(path, 0, temporary_bytes);
    });
  }
  std::vector<MachineRow> rows;
  const auto add = [&](const char* name, double rate) {
    rows.push_back({name, "GB/s", {rate, rate, rate}});
  };
  std::exception_ptr error;
  try {
    add("file read, dropped from the cache before", read_rate(world, path, true));
    add("file read, again", read_rate(world, path, false));
  } catch (...) {
    error = std::current_exception();
  }
  if (file.empty() && world.rank() == 0) ::unlink(path.c_str());
  if (error) std::rethrow_exception(error);
  return rows;
}

FileRates measure_file_rates(const comm::Communicator& world, std::int64_t bytes) {
  const fs::path path = temporary_path(world);
  const std::int64_t begin = world.rank() * bytes;
  FileRates rates;
  std::exception_ptr error;
  try {
    world.barrier("write the temporary file");
    const auto start = std::chrono::steady_clock::now();
    comm::agreed(world, "write the temporary file",
                 [&] { write_part(path, begin, begin + bytes); });
    const double seconds = seconds_since(start);
    const double slowest = world.all_reduce_value("writing", seconds, comm::ReduceOp::max);
    rates.write = static_cast<double>(bytes * world.size()) / slowest;
    rates.read = 1e9 * read_rate(world, path, true);
  } catch (...) {
    error = std::current_exception();
  }
  if (world.rank() == 0) ::unlink(path.c_str());
  if (error) std::rethrow_exception(error);
  return rates;
}

}  // namespace tessera::study
