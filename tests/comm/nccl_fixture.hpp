// SPDX-License-Identifier: Apache-2.0
// NCCL's double used directly, and what it complains about.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "nccl_double.hpp"

namespace tessera::test {

using comm::Communicator;

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// What the double has complained about since this was made.
class Misuses {
 public:
  Misuses() {
    nccl_double::set_misuse_handler([this](const std::string& text) { text_ += text + "\n"; });
  }
  ~Misuses() { nccl_double::set_misuse_handler({}); }
  const std::string& text() const { return text_; }
  bool tell(const std::string& part) const { return contains(text_, part); }
  /// On ranks 0 and 1, whose calls do not fit; a further rank is told which of them it met first.
  bool name(const std::string& both) const;

 private:
  std::string text_;
};

/// A communicator of NCCL's over the job, with a stream. Whatever is left in flight is aborted.
class Nccl {
 public:
  explicit Nccl(const Communicator& world) : world_(world) {
    ncclUniqueId id{};
    if (world.rank() == 0) ncclGetUniqueId(&id);
    world.broadcast("identity", std::span<char>(id.internal), 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclCommInitRankConfig(&comm, world.size(), id, world.rank(), &config);
    settle();
    cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaEventRecord(event, nullptr);
    cudaStreamWaitEvent(stream, event, 0);
  }
  ~Nccl() {
    if (comm != nullptr) ncclCommAbort(comm);
    world_.barrier("aborted");
    cudaEventDestroy(event);
    cudaStreamDestroy(stream);
  }

  /// The state of the communicator once no call is in progress.
  ncclResult_t settle() {
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress) ncclCommGetAsyncError(comm, &state);
    return state;
  }
  /// Until the stream has done everything, or the communicator has met an error.
  ncclResult_t finish() {
    cudaEventRecord(event, stream);
    while (cudaEventQuery(event) == cudaErrorNotReady) {
    }
    return settle();
  }
  ncclResult_t gather(const float* mine, float* all, std::size_t count) {
    return ncclAllGather(mine, all, count, ncclFloat32, comm, stream);
  }

  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;

 private:
  const Communicator& world_;
};

inline const Communicator& world() {
  static const Communicator instance(MPI_COMM_WORLD, "world");
  return instance;
}

inline bool Misuses::name(const std::string& both) const {
  return world().rank() < 2 ? tell(both) : tell("rank 1 calls") && tell("where rank 2 calls");
}

struct Buffers {
  std::vector<float> mine = std::vector<float>(16, 1.0f);
  std::vector<float> all = std::vector<float>(64);
};

}  // namespace tessera::test
