// SPDX-License-Identifier: Apache-2.0
#include "comm/cuda_stream.hpp"

#include "base/error.hpp"

namespace tessera::comm {

void check_cuda(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return;
  fail(ErrorKind::communication, "{} failed: {}", call, cudaGetErrorString(code));
}

CudaEvent::CudaEvent() {
  check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
}

CudaEvent::~CudaEvent() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

void CudaEvent::record(cudaStream_t stream) {
  check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord");
}

bool CudaEvent::has_come() const {
  const cudaError_t code = cudaEventQuery(event_);
  if (code == cudaErrorNotReady) return false;
  check_cuda(code, "cudaEventQuery");
  return true;
}

void CudaEvent::hold(cudaStream_t stream) const {
  check_cuda(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
}

CudaStream::CudaStream() {
  int least = 0, greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest),
             "cudaDeviceGetStreamPriorityRange");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest),
             "cudaStreamCreateWithPriority");
}

CudaStream::~CudaStream() { cudaStreamDestroy(stream_); }

void CudaStream::follow(ComputeStream compute) {
  followed_.record(cuda_stream(compute));
  followed_.hold(stream_);
}

}  // namespace tessera::comm
