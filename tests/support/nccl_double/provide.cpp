// SPDX-License-Identifier: Apache-2.0
// A program that is linked with this has what a build for GPUs has, over the double:
// TESSERA_COLLECTIVES=nccl or staged.
#include <mutex>

#include "comm/collectives_nccl.hpp"
#include "comm/collectives_staged.hpp"
#include "nccl_double.hpp"

namespace {

using namespace tessera::comm;

// Kokkos' tools can be listened to once it is initialised, which it is when a grid is made.
DeviceCollectivesFactory listening(DeviceCollectivesFactory factory) {
  const auto make = [make = factory.make](MPI_Comm communicator, const std::string& name,
                                          std::chrono::milliseconds deadline) {
    static std::once_flag once;
    std::call_once(once, nccl_double::listen_to_kokkos);
    return make(communicator, name, deadline);
  };
  return {make, [describe = factory.describe] { return describe() + " (a double of it)"; },
          factory.misfit};
}

const bool provided = [] {
  provide_device_collectives(DeviceTransport::nccl, listening(nccl_factory()));
  provide_device_collectives(DeviceTransport::staged, listening(staged_factory()));
  return true;
}();

}  // namespace
