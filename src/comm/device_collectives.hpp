// SPDX-License-Identifier: Apache-2.0
// Collectives over device memory: which library makes them, and what such a library has to do
// beside the collectives themselves.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "comm/collectives.hpp"

namespace tessera::comm {

/// What carries device memory.
enum class DeviceTransport {
  mpi,     ///< MPI with the addresses as they are; where kernels run on the host, always possible
  staged,  ///< MPI between pinned host buffers
  nccl
};
const char* to_string(DeviceTransport transport);

/// TESSERA_COLLECTIVES (nccl, mpi, staged), else the best that this build has. Throws Error::usage
/// for another name, or for one that this build has not. local.
DeviceTransport device_transport();
/// "NCCL 2.28.9", "MPI, host memory", ...: for logs. local.
std::string describe_device_transport();

/// What of that library does not fit this program, for people; empty: nothing. local.
std::string device_transport_misfit();

/// Operations of one group of ranks on device memory, in the order of streams.
class DeviceCollectives : public Collectives {
 public:
  /// Those of the ranks of `part`, which were split from this group by `colour`. Nothing is in
  /// flight. collective over this group.
  virtual std::shared_ptr<DeviceCollectives> split(MPI_Comm part, int colour,
                                                   const std::string& name) = 0;
  /// Throws Error::communication if the library has met an error. Any thread. local.
  virtual void check() = 0;
  /// Ends what is in flight, here and in the end at the others; any thread. local.
  virtual void abort() noexcept = 0;
  /// What the library has to say about what it waits for, or empty. Any thread. local.
  virtual std::string state() { return {}; }
};

struct DeviceCollectivesFactory {
  /// collective over the communicator, which outlives what is made.
  std::function<std::shared_ptr<DeviceCollectives>(MPI_Comm, const std::string& name,
                                                   std::chrono::milliseconds deadline)>
      make;
  std::function<std::string()> describe;
  /// What of the library does not fit this program; empty: nothing. May be left out.
  std::function<std::string()> misfit = {};
};
/// Adds a library to those that this build has, before the first grid. local.
void provide_device_collectives(DeviceTransport transport, DeviceCollectivesFactory factory);

/// By device_transport(); null where MPI's collectives over host memory serve kernels, too.
/// collective over communicator.
std::shared_ptr<DeviceCollectives> make_device_collectives(MPI_Comm communicator,
                                                           const std::string& name,
                                                           std::chrono::milliseconds deadline);

/// While it lives, check_device_collectives() and abort_device_collectives() see `collectives`.
class LiveDeviceCollectives {
 public:
  explicit LiveDeviceCollectives(DeviceCollectives& collectives);
  ~LiveDeviceCollectives();
  LiveDeviceCollectives(const LiveDeviceCollectives&) = delete;
  LiveDeviceCollectives& operator=(const LiveDeviceCollectives&) = delete;

 private:
  DeviceCollectives& collectives_;
};

/// check() of all that live: for waits for something else, which may never come after an error.
/// local.
void check_device_collectives();
/// abort() of all that live; what they said of their state. local.
std::string abort_device_collectives();

}  // namespace tessera::comm
