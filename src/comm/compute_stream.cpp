// SPDX-License-Identifier: Apache-2.0
#include "comm/compute_stream.hpp"

#include <Kokkos_Core.hpp>

namespace tessera::comm {

#ifdef KOKKOS_ENABLE_CUDA
ComputeStream compute_stream() { return {Kokkos::Cuda().cuda_stream()}; }
void fence(ComputeStream stream) {
  Kokkos::Cuda(static_cast<cudaStream_t>(stream.handle)).fence("communication reads device memory");
}
#else
ComputeStream compute_stream() { return {}; }
void fence(ComputeStream) { Kokkos::DefaultExecutionSpace().fence(); }
#endif

}  // namespace tessera::comm
