// SPDX-License-Identifier: Apache-2.0
// NCCL's interface, and what of CUDA's it needs, over MPI and host memory. Stricter than NCCL: what
// NCCL's contract forbids ends the job with a message that names both sides.
//
// Work that is given to a stream is not done when it is given, but when something needs it: a
// kernel on a stream that waits for it, a question for an event, a host wait of comm (which asks
// for errors now and then). Until then what a collective will write is filled with NaN, and what it
// will read is remembered, so that a missing wait for an event does not stay unseen. Kernels run
// on the host, on the legacy stream (null); Kokkos Tools and DeviceAccess tell when one begins.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace nccl_double {

/// Is called with what was done wrong instead of ending the job; the call that found it returns an
/// error. Empty: end the job. local.
void set_misuse_handler(std::function<void(const std::string&)> handler);

/// A kernel begins on `stream`: what the stream waits for is done first. Ends: for the trace.
/// local.
void begin_kernel(const std::string& name, cudaStream_t stream = nullptr);
void end_kernel();

/// Lets Kokkos' kernels and copies, and library products, be kernels on the legacy stream. Kokkos
/// is initialised. local.
void listen_to_kokkos();

/// Calls since the last reset that keep the host from going on.
struct Synchronisations {
  std::int64_t device = 0;  ///< until all streams are done
  std::int64_t stream = 0;  ///< until one is
};
Synchronisations synchronisations();
void reset_synchronisations();

/// One piece of work, as it was given to its stream.
struct Record {
  enum class Kind { kernel, collective, copy, record, wait };
  Kind kind = Kind::kernel;
  std::string name{};
  int stream = 0;  ///< 0: the legacy stream
  std::int64_t position = 0;
  std::int64_t bytes = 0;  ///< of a collective or a copy
  double seconds = 0.0;    ///< of a kernel, on the host
  int other_stream = -1;   ///< of a wait: what it waits for
  std::int64_t other_position = -1;
};
/// From now on, or no more. local.
void set_recording(bool on);
std::vector<Record> take_records();

}  // namespace nccl_double
