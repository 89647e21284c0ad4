// SPDX-License-Identifier: Apache-2.0
#include "comm/device_collectives.hpp"

#include <Kokkos_Core.hpp>
#include <array>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#ifdef TESSERA_CUDA
#include "comm/collectives_staged.hpp"
#endif
#ifdef TESSERA_NCCL
#include "comm/collectives_nccl.hpp"
#endif

namespace tessera::comm {
namespace {

constexpr std::array all_transports = {DeviceTransport::nccl, DeviceTransport::mpi,
                                       DeviceTransport::staged};

constexpr bool kernels_use_host_memory =
    Kokkos::SpaceAccessibility<Kokkos::HostSpace,
                               Kokkos::DefaultExecutionSpace::memory_space>::accessible;

using Factories = std::map<DeviceTransport, DeviceCollectivesFactory>;

Factories built_in() {
  Factories factories;
#ifdef TESSERA_CUDA
  factories[DeviceTransport::staged] = staged_factory();
  if (mpi_takes_device_memory()) factories[DeviceTransport::mpi] = direct_factory();
#endif
#ifdef TESSERA_NCCL
  factories[DeviceTransport::nccl] = nccl_factory();
#endif
  return factories;
}

Factories& factories() {
  static Factories instance = built_in();
  return instance;
}

bool is_there(DeviceTransport transport) {
  return factories().contains(transport) ||
         (transport == DeviceTransport::mpi && kernels_use_host_memory);
}

DeviceTransport default_transport() {
  if (kernels_use_host_memory) return DeviceTransport::mpi;
  for (const DeviceTransport each : all_transports) {
    if (is_there(each)) return each;
  }
  return DeviceTransport::mpi;
}

// Never destroyed: the watching thread outlives main.
struct Live {
  std::mutex mutex;
  std::vector<DeviceCollectives*> all;
};
Live& live() {
  static Live& instance = *new Live;
  return instance;
}

}  // namespace

const char* to_string(DeviceTransport transport) {
  switch (transport) {
    case DeviceTransport::mpi: return "mpi";
    case DeviceTransport::staged: return "staged";
    case DeviceTransport::nccl: return "nccl";
  }
  return "?";
}

DeviceTransport device_transport() {
  const char* text = std::getenv("TESSERA_COLLECTIVES");
  if (text == nullptr || *text == '\0') return default_transport();
  for (const DeviceTransport each : all_transports) {
    if (text != std::string_view(to_string(each))) continue;
    if (is_there(each)) return each;
    fail(ErrorKind::usage,
         "TESSERA_COLLECTIVES={} asks for what this build has not (it is chosen when Tessera is "
         "built, see README, GPUs); leave it unset for {}",
         text, to_string(default_transport()));
  }
  fail(ErrorKind::usage,
       "TESSERA_COLLECTIVES is '{}' (it chooses what carries device memory between ranks); use "
       "nccl, mpi or staged",
       text);
}

std::string describe_device_transport() {
  const auto found = factories().find(device_transport());
  return found == factories().end() ? "MPI" : found->second.describe();
}

std::string device_transport_misfit() {
  const auto found = factories().find(device_transport());
  return found == factories().end() || !found->second.misfit ? "" : found->second.misfit();
}

void provide_device_collectives(DeviceTransport transport, DeviceCollectivesFactory factory) {
  factories()[transport] = std::move(factory);
}

std::shared_ptr<DeviceCollectives> make_device_collectives(MPI_Comm communicator,
                                                           const std::string& name,
                                                           std::chrono::milliseconds deadline) {
  const auto found = factories().find(device_transport());
  return found == factories().end() ? nullptr : found->second.make(communicator, name, deadline);
}

LiveDeviceCollectives::LiveDeviceCollectives(DeviceCollectives& collectives)
    : collectives_(collectives) {
  const std::lock_guard lock(live().mutex);
  live().all.push_back(&collectives);
}

LiveDeviceCollectives::~LiveDeviceCollectives() {
  const std::lock_guard lock(live().mutex);
  std::erase(live().all, &collectives_);
}

void check_device_collectives() {
  const std::lock_guard lock(live().mutex);
  for (DeviceCollectives* each : live().all) each->check();
}

std::string abort_device_collectives() {
  const std::lock_guard lock(live().mutex);
  std::string text;
  for (DeviceCollectives* each : live().all) {
    const std::string state = each->state();
    if (!state.empty()) text += (text.empty() ? "" : "; ") + state;
    each->abort();
  }
  return text;
}

}  // namespace tessera::comm
