// SPDX-License-Identifier: Apache-2.0
// The stream in which kernels run, as communication sees it: a handle and the order of work.
#pragma once

namespace tessera::comm {

/// A cudaStream_t, or null: CUDA's legacy stream, and wherever kernels run on the host.
struct ComputeStream {
  void* handle = nullptr;
};

/// That of Kokkos' default execution space. local.
ComputeStream compute_stream();

/// Blocks the host until the stream's work is done. local.
void fence(ComputeStream stream);

}  // namespace tessera::comm
