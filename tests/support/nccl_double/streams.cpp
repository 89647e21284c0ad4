// SPDX-License-Identifier: Apache-2.0
// Streams: in which order their work is done, and when.
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "communicator.hpp"

namespace nccl_double {
namespace {

using Lock = std::unique_lock<std::mutex>;
Lock locked() { return Lock(state().mutex); }

bool advance_first(Stream& stream) {
  const std::shared_ptr<Work> first = stream.queue.front();
  if (!first->advance()) return false;
  first->done = true;
  if (!stream.queue.empty() && stream.queue.front() == first) stream.queue.pop_front();
  return true;
}

void check_order(const Stream& stream, const Work& work) {
  const auto comes_before = [&](int other, std::int64_t position) {
    return static_cast<std::size_t>(other) < work.clock.size() &&
           work.clock[static_cast<std::size_t>(other)] >= position;
  };
  if (work.ranges.empty()) return;
  for (const auto& other : state().streams) {
    if (other->id == stream.id) continue;
    if (work.is_collective && other->last_kernel > 0 &&
        !comes_before(other->id, other->last_kernel)) {
      misuse("stream " + std::to_string(stream.id) + " is given '" + work.name +
             "' and does not wait for the kernel '" + other->last_kernel_name + "', which stream " +
             std::to_string(other->id) + " was given before");
      return;
    }
    for (const auto& pending : other->queue) {
      if (comes_before(other->id, pending->position)) continue;
      for (const Range& mine : work.ranges) {
        for (const Range& theirs : pending->ranges) {
          if (!mine.conflicts(theirs)) continue;
          misuse("'" + work.name + "' on stream " + std::to_string(stream.id) + " and '" +
                 pending->name + "' on stream " + std::to_string(other->id) +
                 " touch the same memory, and neither waits for the other");
          return;
        }
      }
    }
  }
}

void note(const Stream& stream, Record record, const std::string& name) {
  if (!state().recording) return;
  record.name = name;
  record.stream = stream.id;
  record.position = stream.position;
  state().records.push_back(std::move(record));
}

void step(Stream& stream) { clock_at(stream.clock, stream.id) = ++stream.position; }

std::chrono::steady_clock::time_point kernel_begin;

}  // namespace

std::int64_t& clock_at(std::vector<std::int64_t>& clock, int stream) {
  if (clock.size() <= static_cast<std::size_t>(stream)) {
    clock.resize(static_cast<std::size_t>(stream) + 1, 0);
  }
  return clock[static_cast<std::size_t>(stream)];
}

// Never destroyed: the watching thread outlives main.
State& state() {
  static State& instance = *[] {
    auto* made = new State;
    made->streams.push_back(std::make_unique<CUstream_st>());
    made->main_thread = std::this_thread::get_id();
    return made;
  }();
  return instance;
}

int job_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

int job_size() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

ncclResult_t misuse(const std::string& text) {
  if (state().handler) {
    state().handler(text);
    return ncclInvalidUsage;
  }
  std::fprintf(stderr, "nccl double, rank %d: %s\n", job_rank(), text.c_str());
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, 86);
  return ncclInvalidUsage;
}

void set_misuse_handler(std::function<void(const std::string&)> handler) {
  const Lock lock = locked();
  state().handler = std::move(handler);
}

Stream* find_stream(cudaStream_t stream) {
  if (stream == nullptr) return state().streams.front().get();
  for (const auto& each : state().streams) {
    if (each.get() == stream && !each->destroyed) return each.get();
  }
  return nullptr;
}

void enqueue(Stream& stream, std::shared_ptr<Work> work, const Record& record) {
  step(stream);
  work->stream = stream.id;
  work->position = stream.position;
  work->clock = stream.clock;
  check_order(stream, *work);
  note(stream, record, work->name);
  stream.queue.push_back(std::move(work));
}

bool advance_until(Work& work) {
  Stream& stream = *state().streams[static_cast<std::size_t>(work.stream)];
  while (!work.done && advance_first(stream)) {
  }
  return work.done;
}

void advance_all() {
  if (std::this_thread::get_id() != state().main_thread) return;
  for (std::size_t i = 0; i < state().streams.size(); ++i) {
    Stream& stream = *state().streams[i];
    while (!stream.queue.empty() && advance_first(stream)) {
    }
  }
}

void drain(Lock& lock, Stream& stream) {
  while (!stream.queue.empty()) {
    if (advance_first(stream)) continue;
    lock.unlock();
    sched_yield();
    lock.lock();
  }
}

bool in_use(const Range& range) {
  for (const auto& stream : state().streams) {
    for (const auto& work : stream->queue) {
      if (std::any_of(work->ranges.begin(), work->ranges.end(),
                      [&](const Range& each) { return each.overlaps(range); })) {
        return true;
      }
    }
  }
  return false;
}

void begin_kernel(const std::string& name, cudaStream_t handle) {
  Lock lock = locked();
  if (group_is_open()) {
    misuse("the kernel '" + name + "' is started inside an open group: ncclGroupEnd is missing");
  }
  Stream& stream = *find_stream(handle);
  drain(lock, stream);
  step(stream);
  stream.last_kernel = stream.position;
  stream.last_kernel_name = name;
  note(stream, {}, name);
  kernel_begin = std::chrono::steady_clock::now();
}

void end_kernel() {
  const Lock lock = locked();
  if (!state().recording || state().records.empty()) return;
  const auto lasted = std::chrono::steady_clock::now() - kernel_begin;
  state().records.back().seconds = std::chrono::duration<double>(lasted).count();
}

Synchronisations synchronisations() {
  const Lock lock = locked();
  return state().synchronisations;
}

void reset_synchronisations() {
  const Lock lock = locked();
  state().synchronisations = {};
}

void set_recording(bool on) {
  const Lock lock = locked();
  state().recording = on;
}

std::vector<Record> take_records() {
  const Lock lock = locked();
  return std::exchange(state().records, {});
}

}  // namespace nccl_double
