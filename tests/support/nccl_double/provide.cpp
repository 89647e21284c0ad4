// SPDX-License-Identifier: Apache-2.0
// A program that is linked with this has NCCL, over the double: TESSERA_COLLECTIVES=nccl.
#include <Kokkos_Core.hpp>

#include "comm/collectives_nccl.hpp"
#include "nccl_double.hpp"

namespace {

using namespace tessera::comm;

// Kokkos' tools can be listened to once it is initialised, which it is when a grid is made.
std::shared_ptr<DeviceCollectives> make(MPI_Comm communicator, const std::string& name,
                                        std::chrono::milliseconds deadline) {
  static const bool listens = [] {
    nccl_double::listen_to_kokkos();
    return true;
  }();
  (void)listens;
  return nccl_factory().make(communicator, name, deadline);
}

const bool provided = [] {
  provide_device_collectives(
      DeviceTransport::nccl,
      {make, [] { return nccl_factory().describe() + " (its double over MPI)"; }});
  return true;
}();

}  // namespace
