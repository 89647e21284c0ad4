// SPDX-License-Identifier: Apache-2.0
// Without a driver every call returns an error and leaves its outputs untouched.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <array>

#include "comm/devices.hpp"

namespace tessera::comm {
namespace {

std::string problem_text(cudaError_t code, const DeviceFacts& facts) {
  if (facts.driver_version == 0) {
    return "no NVIDIA driver answers (libcuda.so.1 is missing or no GPU is in this node or "
           "container); run on a node with GPUs, in a container with --gpus all";
  }
  if (facts.driver_version < facts.runtime_version && code == cudaErrorInsufficientDriver) {
    return fmt::format(
        "the driver knows CUDA {} at most, and this program needs {}; update the driver, or build "
        "with an older CUDA toolkit",
        cuda_version_text(facts.driver_version), cuda_version_text(facts.runtime_version));
  }
  if (code == cudaErrorNoDevice || code == cudaSuccess) {
    return "the driver shows no GPU to this process (CUDA_VISIBLE_DEVICES may hide them, or the "
           "job asked for none)";
  }
  return fmt::format("CUDA says: {}", cudaGetErrorString(code));
}

std::string bus_id_of(int device) {
  std::array<char, 32> text{};
  if (cudaDeviceGetPCIBusId(text.data(), static_cast<int>(text.size()), device) != cudaSuccess)
    return {};
  return text.data();
}

}  // namespace

DeviceFacts find_devices() {
  DeviceFacts facts;
  facts.built_for_devices = true;
  if (cudaDriverGetVersion(&facts.driver_version) != cudaSuccess) facts.driver_version = 0;
  if (cudaRuntimeGetVersion(&facts.runtime_version) != cudaSuccess) {
    facts.runtime_version = CUDART_VERSION;
  }
  int count = 0;
  cudaError_t code = cudaGetDeviceCount(&count);
  for (int device = 0; code == cudaSuccess && device < count; ++device) {
    cudaDeviceProp properties{};
    code = cudaGetDeviceProperties(&properties, device);
    if (code != cudaSuccess) break;
    facts.devices.push_back({properties.name, properties.major, properties.minor,
                             static_cast<std::int64_t>(properties.totalGlobalMem),
                             bus_id_of(device)});
  }
  if (facts.devices.empty() || code != cudaSuccess) {
    facts.devices.clear();
    facts.problem = problem_text(code, facts);
  }
  return facts;
}

std::optional<DeviceMemory> device_memory() {
  std::size_t free_bytes = 0, total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) return std::nullopt;
  return DeviceMemory{static_cast<std::int64_t>(free_bytes),
                      static_cast<std::int64_t>(total_bytes)};
}

}  // namespace tessera::comm
