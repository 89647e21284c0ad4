// SPDX-License-Identifier: Apache-2.0
// The backend interface under Communicator: collectives over raw buffers that are started and then
// tested. A backend knows nothing of names, deadlines or checks; those are Communicator's.
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>

#include "base/dtype.hpp"
#include "comm/communicator.hpp"

namespace tessera::comm {

/// What the ranks of a group do together; the name appears in errors and in checked mode.
enum class OperationKind : std::int32_t {
  barrier = 1,
  broadcast,
  all_reduce,
  all_gather,
  reduce_scatter,
  all_to_all,
  all_to_all_v,
  split,
  split_node
};
const char* to_string(OperationKind kind);
const char* to_string(ReduceOp op);

/// One started operation. The buffers it was given belong to it until test() has returned true.
/// Destroying it earlier leaves the operation running: only for a job that is about to end.
class Operation {
 public:
  virtual ~Operation() = default;
  /// True once the operation is complete. Makes progress, never blocks. Throws
  /// Error::communication.
  virtual bool test() = 0;
  /// Lets what `stream` is given from now on wait for the operation, and not the host. False where
  /// only the host can wait. local.
  virtual bool hold(ComputeStream) { return false; }
};

/// Collectives of one group of ranks. Each start is collective over the group, in the same order on
/// all ranks; counts are elements and may exceed INT_MAX. Throws Error::communication.
class Collectives {
 public:
  using Started = std::unique_ptr<Operation>;
  virtual ~Collectives() = default;

  /// What is started next finds device memory as the work leaves it that `stream` has been given.
  /// local.
  virtual void follow(ComputeStream stream) { fence(stream); }

  virtual Started start_barrier() = 0;
  virtual Started start_broadcast(void* data, std::int64_t count, Dtype dtype, int root) = 0;
  virtual Started start_all_reduce(void* data, std::int64_t count, Dtype dtype, ReduceOp op) = 0;
  /// Rank r's block of `count` elements goes to all + r * stride elements; `mine` may be this
  /// rank's block there.
  virtual Started start_all_gather(const void* mine, std::int64_t count, void* all,
                                   std::int64_t stride, Dtype dtype) = 0;
  /// Sum. `all` has size x count elements and does not overlap `mine`.
  virtual Started start_reduce_scatter(const void* all, void* mine, std::int64_t count,
                                       Dtype dtype) = 0;
  /// Blocks lie one after the other in rank order; counts agree pairwise.
  virtual Started start_all_to_all_v(const void* send, std::span<const std::int64_t> send_counts,
                                     void* receive, std::span<const std::int64_t> receive_counts,
                                     Dtype dtype) = 0;

  /// After a failed wait operations may still be in flight: the group is of no more use and its
  /// communicator is not freed.
  void mark_broken() { broken_ = true; }
  bool broken() const { return broken_; }

 private:
  std::atomic<bool> broken_ = false;
};

/// Copies this rank's own block: from, to, bytes.
using BlockCopy = std::function<void(const void*, void*, std::size_t)>;

/// Collectives over host memory by MPI's non-blocking calls. Does not own `communicator`. Calls of
/// more than `max_count` elements are made in pieces (MPI counts are int; tests choose a small
/// limit). With a `copy` that can, all but the reductions work on whatever memory MPI takes. local.
std::shared_ptr<Collectives> make_mpi_collectives(
    MPI_Comm communicator, std::int64_t max_count = std::numeric_limits<int>::max(),
    BlockCopy copy = {});

/// Throws Error::communication with MPI's own text unless `code` is MPI_SUCCESS. local.
void check_mpi(int code, const char* call);

}  // namespace tessera::comm
