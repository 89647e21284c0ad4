// SPDX-License-Identifier: Apache-2.0
// CUDA's streams, events and memory on the host.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/device_access.hpp"
#include "state.hpp"

using namespace nccl_double;

namespace {

using Lock = std::unique_lock<std::mutex>;
Lock locked() { return Lock(state().mutex); }

class Copy final : public Work {
 public:
  Copy(void* to, const void* from, std::size_t bytes) : to_(to), from_(from), bytes_(bytes) {
    name = "copy";
    ranges = {{static_cast<const std::byte*>(from), bytes, false},
              {static_cast<const std::byte*>(to), bytes, true}};
  }
  bool advance() override {
    const auto size = static_cast<std::int64_t>(bytes_);
    const tessera::DeviceAccess reads("copy", from_, size), writes("copy", to_, size);
    std::memcpy(to_, from_, bytes_);
    return true;
  }

 private:
  void* to_;
  const void* from_;
  std::size_t bytes_;
};

class Wait final : public Work {
 public:
  explicit Wait(std::shared_ptr<Work> target) : target_(std::move(target)) { name = "wait"; }
  bool advance() override { return advance_until(*target_); }

 private:
  std::shared_ptr<Work> target_;
};

cudaError_t bad(const char* call, const char* what) {
  misuse(std::string(call) + ": " + what);
  return cudaErrorInvalidResourceHandle;
}

}  // namespace

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -1;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int flags, int) {
  const Lock lock = locked();
  if (flags != cudaStreamNonBlocking) {
    return bad("cudaStreamCreateWithPriority", "the legacy stream would wait for this stream");
  }
  auto made = std::make_unique<CUstream_st>();
  made->id = static_cast<int>(state().streams.size());
  *stream = made.get();
  state().streams.push_back(std::move(made));
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  const Lock lock = locked();
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return bad("cudaStreamDestroy", "no such stream");
  stream->destroyed = true;  // what it was given is still done
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Lock lock = locked();
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return bad("cudaStreamSynchronize", "no such stream");
  ++state().synchronisations.stream;
  drain(lock, *stream);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  Lock lock = locked();
  ++state().synchronisations.device;
  for (std::size_t i = 0; i < state().streams.size(); ++i) drain(lock, *state().streams[i]);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  const Lock lock = locked();
  *event = *state().events.insert(new CUevent_st).first;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock = locked();
  if (state().events.erase(event) == 0) return bad("cudaEventDestroy", "no such event");
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  const Lock lock = locked();
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return bad("cudaEventRecord", "no such stream");
  if (!state().events.contains(event)) return bad("cudaEventRecord", "no such event");
  if (group_is_open()) {
    return bad("cudaEventRecord",
               "calls of an open group are not in the stream yet: ncclGroupEnd is missing");
  }
  event->recorded = std::make_shared<Work>();
  event->recorded->name = "record";
  enqueue(*stream, event->recorded, {.kind = Record::Kind::record});
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock = locked();
  if (!state().events.contains(event)) return bad("cudaEventQuery", "no such event");
  if (!event->recorded || event->recorded->done) return cudaSuccess;
  if (std::this_thread::get_id() == state().main_thread) advance_until(*event->recorded);
  return event->recorded->done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned int) {
  const Lock lock = locked();
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return bad("cudaStreamWaitEvent", "no such stream");
  if (!state().events.contains(event)) return bad("cudaStreamWaitEvent", "no such event");
  if (!event->recorded) return cudaSuccess;
  const Work& target = *event->recorded;
  for (std::size_t i = 0; i < target.clock.size(); ++i) {
    std::int64_t& known = clock_at(stream->clock, static_cast<int>(i));
    known = std::max(known, target.clock[i]);
  }
  enqueue(*stream, std::make_shared<Wait>(event->recorded),
          {.kind = Record::Kind::wait,
           .other_stream = target.stream,
           .other_position = target.position});
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t handle) {
  const Lock lock = locked();
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return bad("cudaMemcpyAsync", "no such stream");
  enqueue(*stream, std::make_shared<Copy>(to, from, bytes),
          {.kind = Record::Kind::copy, .bytes = static_cast<std::int64_t>(bytes)});
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
  }
  return "unknown error";
}
