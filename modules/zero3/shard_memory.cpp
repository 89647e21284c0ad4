// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <tessera/zero3/shard_memory.hpp>
#include <type_traits>

#include "kernel/allocate.hpp"

namespace tessera::zero3 {

ShardMemory::ShardMemory(const std::string& label, std::int64_t size) {
  constexpr bool is_host = std::is_same_v<kernel::Memory, Kokkos::HostSpace>;
  if (!is_host || !kernel::host_sees_memory()) {
    values_ = kernel::allocate_zeros<kernel::Vector<float>>(label, size);
    return;
  }
  if (size == 0) return;
  const auto num_bytes = static_cast<std::size_t>(size) * sizeof(float);
  void* const data =
      mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    kernel::fail_allocation(label, static_cast<double>(num_bytes), std::strerror(errno));
  // Fewer faults at first touch. A wish, so no error: without huge pages it goes more slowly.
  (void)madvise(data, num_bytes, MADV_HUGEPAGE);
  pages_ = {static_cast<float*>(data), Unmap{num_bytes}};
  values_ = kernel::Vector<float>(pages_.get(), size);
}

void ShardMemory::Unmap::operator()(float* data) const { munmap(data, num_bytes); }

}  // namespace tessera::zero3
