// SPDX-License-Identifier: Apache-2.0
// A named group of ranks that owns its duplicate of an MPI_Comm. Every collective names its call
// site, waits with a deadline and yields the core while it waits; in checked mode the ranks compare
// what they are about to do before they do it.
#pragma once

#include <mpi.h>

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.hpp"
#include "base/error.hpp"
#include "comm/compute_stream.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {

enum class ReduceOp { sum, max, min };

/// TESSERA_RANKS_PER_NODE, or 0. Throws Error::usage if it is no number from 1 on. local.
int default_ranks_per_node();

/// How a communicator waits and whether it checks; the same on all its ranks.
struct CommunicatorOptions {
  std::chrono::milliseconds deadline = default_deadline();  ///< of every single wait
  /// Compare each collective (operation, dtype, count, name) across ranks before it starts. The
  /// environment variable TESSERA_CHECKED=1 on any rank turns it on for all.
  bool checked = false;
  /// Ranks that count as one node, consecutive by world rank; 0: those that do share one. To try
  /// the ways between nodes on one machine, or to treat NUMA domains as nodes. The environment
  /// variable TESSERA_RANKS_PER_NODE, the same on all ranks, is the default.
  int ranks_per_node = default_ranks_per_node();
  /// Device memory is carried as TESSERA_COLLECTIVES says; else by MPI. Also in what is split from
  /// the communicator, nodes excepted.
  bool device = false;
};

/// What one kind of collective brought to this rank.
struct TrafficVolume {
  std::int64_t logical_bytes = 0;  ///< what plain collectives would have received from others
  /// What was received from others or read in their memory: less, where ranks share memory. (Or
  /// more: contributions read there are never narrowed.)
  std::int64_t moved_bytes = 0;
};

/// Volume and time of one communicator's collectives on this rank.
struct Traffic {
  TrafficVolume all_gather;
  TrafficVolume reduce_scatter;
  TrafficVolume all_to_all;
  TrafficVolume all_reduce;
  /// Of operations that were started and waited for later: from the start to the end of the wait,
  /// and in the wait alone. The share that work hid is 1 - waited_s / in_flight_s.
  double in_flight_s = 0.0;
  double waited_s = 0.0;

  TrafficVolume total() const;
  Traffic& operator+=(const Traffic& other);
  Traffic& operator-=(const Traffic& other);
};

class Collectives;        // the backend: collectives.hpp
class DeviceCollectives;  // the backend for device memory: device_collectives.hpp
class CallChecker;        // checked mode: checked.hpp
enum class OperationKind : std::int32_t;

/// An operation in flight. wait() completes it, with the communicator's deadline. It makes progress
/// while it is waited for or tested, and where the thread that started it waits for another or
/// multiplies matrices (base/polling.hpp); that thread alone uses it. Destroying an unfinished
/// request is a contract violation (MPI still owns the buffers), except while an exception unwinds:
/// then it is given two seconds to complete.
///
/// On device memory wait() makes the stream wait and not the host, where the backend can: kernels
/// that follow find the operation complete, the host does not. Its deadline then runs in the
/// watchdog.
class Request {
 public:
  Request();
  /// `test` makes progress and tells whether the operation is complete; none: wait() alone knows.
  explicit Request(std::function<void()> wait, std::function<bool()> test = {});
  Request(Request&&) noexcept;
  Request& operator=(Request&&) noexcept;
  ~Request();

  bool pending() const { return static_cast<bool>(wait_); }
  /// Moves the operation on; whether wait() would return at once. Throws Error::communication.
  bool test();
  /// Completes the operation; a second call does nothing. Throws Error::communication past the
  /// deadline.
  void wait();

 private:
  std::function<void()> wait_;
  std::function<bool()> test_;
};

class Communicator {
 public:
  /// Duplicates `parent` (in checked mode twice) and sets MPI_ERRORS_RETURN on the duplicate.
  /// collective over parent.
  Communicator(MPI_Comm parent, std::string name, CommunicatorOptions options = {});
  /// Takes over a communicator that has just been split; it is freed with this object.
  /// options.checked must be the same on all ranks. collective over own.
  static Communicator adopt(MPI_Comm own, std::string name, CommunicatorOptions options);
  Communicator(Communicator&&) noexcept;
  Communicator& operator=(Communicator&&) noexcept;
  ~Communicator();

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }
  MPI_Comm mpi() const { return mpi_; }  ///< for HDF5's MPI driver; stays owned by this object
  /// Whether device memory is carried by something else than MPI on the host: then ranks do not
  /// share it by way of the host either.
  bool has_device_collectives() const { return device_ != nullptr; }
  const CommunicatorOptions& options() const { return options_; }
  const Traffic& traffic() const { return *traffic_; }
  /// Counts what goes past the collectives below, through shared memory. local.
  void count_volume(TrafficVolume Traffic::*kind, TrafficVolume volume) const;
  void count_time(double in_flight_s, double waited_s) const;
  /// Ranks of this group, ascending, in the numbering of the communicator that the first in the
  /// line of splits was made from (0 .. size()-1 for one that was not split).
  const std::vector<int>& world_ranks() const { return world_ranks_; }

  /// Ranks with equal colour form a new communicator, ordered by this one's ranks. collective.
  Communicator split(int colour, std::string name) const;
  /// The ranks that share this rank's node (see CommunicatorOptions::ranks_per_node). collective.
  Communicator split_node(std::string name) const;

  // All below: collective over this communicator, the same order on all ranks. Counts are elements.
  // `what` names the call in errors and is the same on all ranks. T: float, double, bf16, int32_t,
  // int64_t, uint64_t, uint8_t, char, byte. Throws Error::communication: a failed or mismatched
  // call, a deadline passed.
  //
  // Calls whose first argument is a ComputeStream take device memory (where kernels run on the
  // host: theirs), as the work given to the stream so far leaves it, and kernels may use the result
  // once wait() has returned. All others take host memory.

  void barrier(std::string_view what) const { start_barrier(what).wait(); }
  /// Non-blocking barrier: complete once all ranks have started it.
  Request start_barrier(std::string_view what) const;
  /// Of the streams: work given to `stream` after wait() follows what all ranks had given to
  /// theirs.
  Request start_barrier(ComputeStream stream, std::string_view what) const;

  template <class T>
  void broadcast(std::string_view what, std::span<T> data, int root) const {
    start_broadcast_raw(what, data.data(), as_count(data.size()), dtype_of<T>, root).wait();
  }
  template <class T>
  Request start_broadcast(ComputeStream stream, std::string_view what, std::span<T> data,
                          int root) const {
    return start_broadcast_raw(what, data.data(), as_count(data.size()), dtype_of<T>, root,
                               &stream);
  }
  /// A string of any length from root. collective.
  std::string broadcast_string(std::string_view what, std::string text, int root) const;

  template <class T>
  void all_reduce(std::string_view what, std::span<T> data, ReduceOp op) const {
    start_all_reduce_raw(what, data.data(), as_count(data.size()), dtype_of<T>, op).wait();
  }
  template <class T>
  Request start_all_reduce(ComputeStream stream, std::string_view what, std::span<T> data,
                           ReduceOp op) const {
    return start_all_reduce_raw(what, data.data(), as_count(data.size()), dtype_of<T>, op, &stream);
  }
  template <class T>
  T all_reduce_value(std::string_view what, T value, ReduceOp op) const {
    all_reduce(what, std::span<T>(&value, 1), op);
    return value;
  }

  /// all.size() == mine.size() * size(); `mine` may be this rank's part of `all` (in place).
  template <class T>
  void all_gather(std::string_view what, std::span<const T> mine, std::span<T> all) const {
    start_all_gather(what, mine, all).wait();
  }
  /// Non-blocking all_gather; both buffers stay untouched until wait() returns.
  template <class T>
  Request start_all_gather(std::string_view what, std::span<const T> mine, std::span<T> all) const {
    expect_blocks(mine.size(), all.size());
    return start_all_gather_raw(what, mine.data(), as_count(mine.size()), all.data(),
                                as_count(mine.size()), dtype_of<T>);
  }
  /// In place: rank r's block of `count` elements is at data + r * stride, and arrives there on
  /// all other ranks; what lies between the blocks stays. stride >= count.
  template <class T>
  Request start_all_gather_strided(std::string_view what, T* data, std::int64_t count,
                                   std::int64_t stride) const {
    return start_all_gather_raw(what, data + rank_ * stride, count, data, stride, dtype_of<T>);
  }
  template <class T>
  Request start_all_gather(ComputeStream stream, std::string_view what, std::span<const T> mine,
                           std::span<T> all) const {
    expect_blocks(mine.size(), all.size());
    return start_all_gather_raw(what, mine.data(), as_count(mine.size()), all.data(),
                                as_count(mine.size()), dtype_of<T>, &stream);
  }
  template <class T>
  Request start_all_gather_strided(ComputeStream stream, std::string_view what, T* data,
                                   std::int64_t count, std::int64_t stride) const {
    return start_all_gather_raw(what, data + rank_ * stride, count, data, stride, dtype_of<T>,
                                &stream);
  }
  /// One value of each rank, in rank order.
  template <class T>
  std::vector<T> all_gather_value(std::string_view what, T value) const {
    std::vector<T> all(static_cast<std::size_t>(size_));
    all_gather(what, std::span<const T>(&value, 1), std::span<T>(all));
    return all;
  }

  /// Sums `all` over the ranks; this rank receives block rank() of `all.size() / size()` elements.
  /// `mine` may not overlap `all`.
  template <class T>
  void reduce_scatter(std::string_view what, std::span<const T> all, std::span<T> mine) const {
    start_reduce_scatter(what, all, mine).wait();
  }
  template <class T>
  Request start_reduce_scatter(std::string_view what, std::span<const T> all,
                               std::span<T> mine) const {
    return start_reduce_scatter_raw(what, all.data(), as_count(all.size()), mine.data(),
                                    as_count(mine.size()), dtype_of<T>);
  }

  template <class T>
  Request start_reduce_scatter(ComputeStream stream, std::string_view what, std::span<const T> all,
                               std::span<T> mine) const {
    return start_reduce_scatter_raw(what, all.data(), as_count(all.size()), mine.data(),
                                    as_count(mine.size()), dtype_of<T>, &stream);
  }

  /// Equal blocks: block r of `send` goes to rank r, block r of `receive` comes from it.
  template <class T>
  void all_to_all(std::string_view what, std::span<const T> send, std::span<T> receive) const {
    all_to_all_raw(what, send.data(), as_count(send.size()), receive.data(),
                   as_count(receive.size()), dtype_of<T>);
  }
  /// Blocks of any length, laid out one after the other in rank order. Counts are elements and must
  /// agree pairwise; zero is allowed everywhere.
  template <class T>
  void all_to_all_v(std::string_view what, std::span<const T> send,
                    std::span<const std::int64_t> send_counts, std::span<T> receive,
                    std::span<const std::int64_t> receive_counts) const {
    start_all_to_all_v(what, send, send_counts, receive, receive_counts).wait();
  }
  template <class T>
  Request start_all_to_all_v(std::string_view what, std::span<const T> send,
                             std::span<const std::int64_t> send_counts, std::span<T> receive,
                             std::span<const std::int64_t> receive_counts) const {
    return start_all_to_all_v_raw(what, send.data(), send_counts, receive.data(), receive_counts,
                                  dtype_of<T>);
  }
  template <class T>
  Request start_all_to_all_v(ComputeStream stream, std::string_view what, std::span<const T> send,
                             std::span<const std::int64_t> send_counts, std::span<T> receive,
                             std::span<const std::int64_t> receive_counts) const {
    return start_all_to_all_v_raw(what, send.data(), send_counts, receive.data(), receive_counts,
                                  dtype_of<T>, &stream);
  }

 private:
  Communicator() = default;
  struct Call;
  struct Flight;
  Request start(const Call& call) const;
  void set_up(MPI_Comm own, std::string name, CommunicatorOptions options);
  Communicator made_by_split(const Call& call, int device_colour, std::string name,
                             const std::function<int(MPI_Comm*)>& make) const;
  void expect_blocks(std::size_t block, std::size_t all) const;
  static std::int64_t as_count(std::size_t n) { return static_cast<std::int64_t>(n); }

  // stream: null for host memory
  Request start_broadcast_raw(std::string_view what, void* data, std::int64_t count, Dtype dtype,
                              int root, const ComputeStream* stream = nullptr) const;
  Request start_all_reduce_raw(std::string_view what, void* data, std::int64_t count, Dtype dtype,
                               ReduceOp op, const ComputeStream* stream = nullptr) const;
  Request start_all_gather_raw(std::string_view what, const void* mine, std::int64_t count,
                               void* all, std::int64_t stride, Dtype dtype,
                               const ComputeStream* stream = nullptr) const;
  Request start_reduce_scatter_raw(std::string_view what, const void* all, std::int64_t all_count,
                                   void* mine, std::int64_t count, Dtype dtype,
                                   const ComputeStream* stream = nullptr) const;
  void all_to_all_raw(std::string_view what, const void* send, std::int64_t send_count,
                      void* receive, std::int64_t receive_count, Dtype dtype) const;
  Request start_all_to_all_v_raw(std::string_view what, const void* send,
                                 std::span<const std::int64_t> send_counts, void* receive,
                                 std::span<const std::int64_t> receive_counts, Dtype dtype,
                                 const ComputeStream* stream = nullptr) const;

  MPI_Comm mpi_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::string name_;
  CommunicatorOptions options_;
  std::vector<int> world_ranks_;
  std::shared_ptr<Collectives> collectives_;
  std::shared_ptr<DeviceCollectives> device_;  // null: device memory goes by collectives_, too
  std::shared_ptr<CallChecker> checker_;       // null unless options_.checked
  std::shared_ptr<Traffic> traffic_;           // outlives requests in flight
};

}  // namespace tessera::comm
