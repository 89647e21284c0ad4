// SPDX-License-Identifier: Apache-2.0
// Memory that all ranks of one node read and write by ordinary loads and stores: one segment per
// rank, one after the other. POSIX shared memory rather than MPI_Win_allocate_shared: a full
// /dev/shm is an error code and no SIGBUS, giving it back is local, and a killed job leaves nothing
// behind, because the name is gone before the memory is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "comm/communicator.hpp"

namespace tessera::comm {

class SharedMemory {
 public:
  /// node.size() segments of segment_bytes each (the same on all ranks), zeroed, their pages placed
  /// near the rank that owns them. Empty on all ranks alike where there is no such memory: /dev/shm
  /// is full or missing, or the ranks do not share one; the reason goes to the log. Also where the
  /// environment of rank 0 has TESSERA_SHARED_MEMORY=off.
  /// collective over node.
  static std::optional<SharedMemory> allocate(const Communicator& node, std::string_view what,
                                              std::int64_t segment_bytes);
  SharedMemory(SharedMemory&&) noexcept;
  SharedMemory& operator=(SharedMemory&&) noexcept;
  /// Unmaps; other ranks keep their mapping. local.
  ~SharedMemory();

  /// Segment r begins at data() + r * segment_bytes(). What a rank stored before a barrier is seen
  /// by the others after it.
  std::byte* data() const { return data_; }
  std::int64_t segment_bytes() const { return segment_bytes_; }
  std::byte* segment(int rank) const { return data_ + rank * segment_bytes_; }

 private:
  SharedMemory(std::byte* data, std::int64_t size_bytes, std::int64_t segment_bytes)
      : data_(data), size_bytes_(size_bytes), segment_bytes_(segment_bytes) {}

  std::byte* data_ = nullptr;
  std::int64_t size_bytes_ = 0;
  std::int64_t segment_bytes_ = 0;
};

}  // namespace tessera::comm
