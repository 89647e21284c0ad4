// SPDX-License-Identifier: Apache-2.0
// CUDA's streams and events as objects, for backends that work on device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

#include "comm/compute_stream.hpp"

namespace tessera::comm {

/// Throws Error::communication with CUDA's own text unless `code` is cudaSuccess. local.
void check_cuda(cudaError_t code, const char* call);

/// A moment in the work of a stream.
class CudaEvent {
 public:
  CudaEvent();
  CudaEvent(CudaEvent&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  CudaEvent& operator=(CudaEvent&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  ~CudaEvent();

  /// The moment is when all that `stream` has been given is done. local.
  void record(cudaStream_t stream);
  /// Whether it has come. Any thread. local.
  bool has_come() const;
  /// What `stream` is given from now on waits for it. local.
  void hold(cudaStream_t stream) const;

 private:
  cudaEvent_t event_ = nullptr;
};

/// A stream of its own that nothing waits for by itself, with precedence over kernels.
class CudaStream {
 public:
  CudaStream();
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  ~CudaStream();

  cudaStream_t get() const { return stream_; }
  /// What it is given from now on waits for what `compute` has been given. local.
  void follow(ComputeStream compute);

 private:
  cudaStream_t stream_ = nullptr;
  CudaEvent followed_;
};

inline cudaStream_t cuda_stream(ComputeStream stream) {
  return static_cast<cudaStream_t>(stream.handle);
}

}  // namespace tessera::comm
