// SPDX-License-Identifier: Apache-2.0
// How the ranks of a node tell one another how far they are, by stores and loads in shared memory:
// nothing has to be inside MPI for the news to arrive.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "comm/shared_memory.hpp"

namespace tessera::comm {

/// A row of counters for each rank of a node, all 0 at first. Each rank sets its own, upwards.
class SharedCounters {
 public:
  /// Empty on all ranks alike where there is no shared memory. `node` must outlive the counters.
  /// collective over node.
  static std::optional<SharedCounters> allocate(const Communicator& node,
                                                std::int64_t num_counters);

  /// This rank's `counter` becomes `value`. Whoever finds it reached sees what this rank stored
  /// before. local.
  void set(std::int64_t counter, std::int64_t value) const;
  /// Whether `counter` is `value` or more on all ranks. local.
  bool reached(std::int64_t counter, std::int64_t value) const;
  /// Until it is. Throws Error::communication past the node's deadline: a rank has not come.
  void wait(std::string_view what, std::int64_t counter, std::int64_t value) const;

 private:
  SharedCounters(const Communicator& node, SharedMemory memory);

  MPI_Comm mpi_;
  std::string name_;
  int rank_;
  int size_;
  std::chrono::milliseconds deadline_;
  SharedMemory memory_;
};

}  // namespace tessera::comm
