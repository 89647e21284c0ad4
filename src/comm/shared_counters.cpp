// SPDX-License-Identifier: Apache-2.0
#include "comm/shared_counters.hpp"

#include <atomic>

#include "comm/wait.hpp"

namespace tessera::comm {
namespace {

constexpr std::int64_t cache_line_bytes = 64;

std::atomic_ref<std::int64_t> counter_of(const SharedMemory& memory, int rank,
                                         std::int64_t counter) {
  static_assert(std::atomic_ref<std::int64_t>::is_always_lock_free);
  return std::atomic_ref(reinterpret_cast<std::int64_t*>(memory.segment(rank))[counter]);
}

}  // namespace

std::optional<SharedCounters> SharedCounters::allocate(const Communicator& node,
                                                       std::int64_t num_counters) {
  const std::int64_t bytes = num_counters * static_cast<std::int64_t>(sizeof(std::int64_t));
  const std::int64_t num_lines = (bytes + cache_line_bytes - 1) / cache_line_bytes;
  auto memory = SharedMemory::allocate(node, "counters", num_lines * cache_line_bytes);
  if (!memory) return std::nullopt;
  return SharedCounters(node, std::move(*memory));
}

SharedCounters::SharedCounters(const Communicator& node, SharedMemory memory)
    : mpi_(node.mpi()),
      name_(node.name()),
      rank_(node.rank()),
      size_(node.size()),
      deadline_(node.options().deadline),
      memory_(std::move(memory)) {}

void SharedCounters::set(std::int64_t counter, std::int64_t value) const {
  counter_of(memory_, rank_, counter).store(value, std::memory_order_release);
}

bool SharedCounters::reached(std::int64_t counter, std::int64_t value) const {
  for (int rank = 0; rank < size_; ++rank) {
    if (counter_of(memory_, rank, counter).load(std::memory_order_acquire) < value) return false;
  }
  return true;
}

void SharedCounters::wait(std::string_view what, std::int64_t counter, std::int64_t value) const {
  if (reached(counter, value)) return;
  wait_until({name_, OperationKind::barrier, std::string(what), rank_, size_, deadline_}, [&] {
    int there = 0;  // what is in flight through MPI goes on meanwhile
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, 0, mpi_, &there, MPI_STATUS_IGNORE), "MPI_Iprobe");
    return reached(counter, value);
  });
}

}  // namespace tessera::comm
