// SPDX-License-Identifier: Apache-2.0
// Of a build that computes on processors.
#include "comm/devices.hpp"

namespace tessera::comm {

DeviceFacts find_devices() {
  DeviceFacts facts;
  facts.problem = "this Tessera was built without CUDA";
  return facts;
}

std::optional<DeviceMemory> device_memory() { return std::nullopt; }

}  // namespace tessera::comm
