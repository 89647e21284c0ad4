// SPDX-License-Identifier: Apache-2.0
#include "comm/shared_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/log.hpp"
#include "comm/agree.hpp"

namespace tessera::comm {
namespace {

/// A descriptor of the region; the name lives only until all ranks have opened it.
class Region {
 public:
  explicit Region(int descriptor) : descriptor_(descriptor) {}
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

[[noreturn]] void fail_here(const char* call, int error) {
  fail(ErrorKind::memory, "{}: {}", call, std::strerror(error));
}

int open_region(const std::string& name, int flags) {
  const int descriptor = shm_open(name.c_str(), flags | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (descriptor < 0) fail_here("shm_open", errno);
  return descriptor;
}

/// Takes the pages of [offset, offset + bytes) now: here a full /dev/shm is an error, at the first
/// store it would be SIGBUS. They are placed on the NUMA node of the rank that asks.
void reserve(int descriptor, std::int64_t offset, std::int64_t bytes) {
  if (bytes == 0) return;
  int error = EINTR;
  while (error == EINTR) error = posix_fallocate(descriptor, offset, bytes);
  if (error != 0) fail_here("posix_fallocate in /dev/shm", error);
}

std::byte* map(int descriptor, std::int64_t size_bytes) {
  if (size_bytes == 0) return nullptr;
  void* data = mmap(nullptr, static_cast<std::size_t>(size_bytes), PROT_READ | PROT_WRITE,
                    MAP_SHARED, descriptor, 0);
  if (data == MAP_FAILED) fail_here("mmap", errno);
  // Huge pages where the administrator lets shared memory have them; a wish, so no error.
  (void)madvise(data, static_cast<std::size_t>(size_bytes), MADV_HUGEPAGE);
  return static_cast<std::byte*>(data);
}

bool switched_off() {
  const char* text = std::getenv("TESSERA_SHARED_MEMORY");
  return text != nullptr && std::string_view(text) == "off";
}

/// Different for every region of every job: rank 0's process and a count; empty if rank 0's
/// environment wants no shared memory.
std::string unused_name(const Communicator& node) {
  static std::atomic<std::int64_t> count{0};
  const std::string name = fmt::format("/tessera-{}-{}", getpid(), count.fetch_add(1));
  return node.broadcast_string("shared memory name", switched_off() ? std::string() : name, 0);
}

/// Opened by all; the name is removed whatever happens.
int open_on_all_ranks(const Communicator& node, const std::string& name, std::int64_t size_bytes) {
  int descriptor = -1;
  agreed(node, "make shared memory", [&] {
    if (node.rank() != 0) return;
    descriptor = open_region(name, O_CREAT | O_EXCL);
    if (ftruncate(descriptor, size_bytes) != 0) fail_here("ftruncate", errno);
  });
  std::exception_ptr error;
  try {
    if (node.rank() != 0) descriptor = open_region(name, 0);
  } catch (const Error&) {
    error = std::current_exception();
  }
  node.barrier("shared memory opened");
  if (node.rank() == 0) shm_unlink(name.c_str());
  agree(node, "open shared memory", error);
  return descriptor;
}

}  // namespace

std::optional<SharedMemory> SharedMemory::allocate(const Communicator& node, std::string_view what,
                                                   std::int64_t segment_bytes) {
  const std::int64_t size_bytes = segment_bytes * node.size();
  const std::string name = unused_name(node);
  if (name.empty()) return std::nullopt;
  try {
    const Region region(open_on_all_ranks(node, name, size_bytes));
    agreed(node, "reserve shared memory",
           [&] { reserve(region.descriptor(), node.rank() * segment_bytes, segment_bytes); });
    std::byte* data = nullptr;
    agreed(node, "map shared memory", [&] { data = map(region.descriptor(), size_bytes); });
    return SharedMemory(data, size_bytes, segment_bytes);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::memory) throw;
    if (node.rank() == 0) {
      log_rank(LogLevel::warning, "no shared memory of {} bytes for {}, copies travel instead: {}",
               size_bytes, what, error.what());
    }
    return std::nullopt;
  }
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)),
      segment_bytes_(std::exchange(other.segment_bytes_, 0)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(segment_bytes_, other.segment_bytes_);
  return *this;
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(size_bytes_));
}

}  // namespace tessera::comm
