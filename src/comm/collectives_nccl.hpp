// SPDX-License-Identifier: Apache-2.0
// Collectives over device memory by NCCL (2.18 or newer). Each process grid has one parent
// communicator, its axes are split from it; each has a stream, so that the rows of a dispatch do
// not queue behind a gather. Communicators are non-blocking: no call keeps the host longer than the
// deadline.
#pragma once

#include "comm/device_collectives.hpp"

namespace tessera::comm {

/// local.
DeviceCollectivesFactory nccl_factory();

}  // namespace tessera::comm
