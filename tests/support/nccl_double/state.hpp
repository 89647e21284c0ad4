// SPDX-License-Identifier: Apache-2.0
// What the double knows: streams with their work, events, communicators. One lock for all of it.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "nccl_double.hpp"

namespace nccl_double {

/// Memory that work touches.
struct Range {
  const std::byte* begin = nullptr;
  std::size_t bytes = 0;
  bool written = false;

  bool overlaps(const Range& other) const {
    return begin < other.begin + other.bytes && other.begin < begin + bytes;
  }
  bool conflicts(const Range& other) const { return (written || other.written) && overlaps(other); }
};

/// Something in a stream.
class Work {
 public:
  virtual ~Work() = default;
  /// Makes progress; true once done. It is the first of its stream that is not.
  virtual bool advance() { return true; }

  std::string name;
  int stream = 0;
  std::int64_t position = 0;
  std::vector<std::int64_t> clock;  ///< by stream: up to which position its work comes before this
  std::vector<Range> ranges;
  bool is_collective = false;
  bool done = false;
};

struct Stream {
  int id = 0;
  bool destroyed = false;
  std::int64_t position = 0;
  std::vector<std::int64_t> clock;
  std::deque<std::shared_ptr<Work>> queue;  ///< not done yet
  std::int64_t last_kernel = 0;
  std::string last_kernel_name;
};

struct State {
  std::mutex mutex;
  std::vector<std::unique_ptr<CUstream_st>> streams;  ///< the first is the legacy stream
  std::set<cudaEvent_t> events;
  std::vector<std::unique_ptr<ncclComm>> communicators;  ///< the destroyed ones, too
  std::function<void(const std::string&)> handler;
  std::thread::id main_thread;
  Synchronisations synchronisations;
  bool recording = false;
  std::vector<Record> records;
};
State& state();

/// This process's rank in the job, and their number.
int job_rank();
int job_size();

/// Tells the handler, or ends the job. Returns ncclInvalidUsage.
ncclResult_t misuse(const std::string& text);

/// How far `clock` knows the work of a stream.
std::int64_t& clock_at(std::vector<std::int64_t>& clock, int stream);

/// Null for a stream that is none.
Stream* find_stream(cudaStream_t stream);
/// Gives `work` to the stream; misuse where it and other work touch the same memory and neither
/// waits for the other, or where a collective does not wait for a kernel that was started before.
void enqueue(Stream& stream, std::shared_ptr<Work> work, const Record& record);
/// Makes progress until `work` is done, as far as that goes; whether it is.
bool advance_until(Work& work);
/// Makes progress with the first work of all streams.
void advance_all();
/// Waits with the lock given back in between, until the stream is empty.
void drain(std::unique_lock<std::mutex>& lock, Stream& stream);
/// Whether work that is not done, on any stream, touches the range.
bool in_use(const Range& range);

/// Whether calls of an open group wait for its end; of a communicator or a stream, or any.
bool group_is_open();
/// Progress of communicators in the making.
void advance_communicators();

}  // namespace nccl_double

struct CUstream_st : nccl_double::Stream {};
struct CUevent_st {
  std::shared_ptr<nccl_double::Work> recorded;  ///< null: never
};
