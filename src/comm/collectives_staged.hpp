// SPDX-License-Identifier: Apache-2.0
// Collectives over device memory by MPI, where there is no NCCL: with device addresses, if the MPI
// library takes them, or through pinned host buffers. Reductions always go through the host, where
// they are summed in rank order. The host moves an operation on: it is kept by wait(), and not by
// what comes between start and wait.
#pragma once

#include "comm/device_collectives.hpp"

namespace tessera::comm {

/// Through pinned host buffers. local.
DeviceCollectivesFactory staged_factory();
/// With device addresses. local.
DeviceCollectivesFactory direct_factory();
/// Whether the MPI library says that it takes device addresses. local.
bool mpi_takes_device_memory();

}  // namespace tessera::comm
