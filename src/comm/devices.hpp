// SPDX-License-Identifier: Apache-2.0
// The GPUs that this process sees, which of them is its own, and whether MPI knows their memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tessera::comm {

struct Device {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  std::int64_t total_bytes = 0;
  std::string bus_id;  ///< PCI: tells the GPUs of a node apart whatever each process sees of them
};

/// What the CUDA runtime finds.
struct DeviceFacts {
  bool built_for_devices = false;  ///< with TESSERA_CUDA
  int driver_version = 0;   ///< newest CUDA that the driver knows, 13000 for 13.0; 0: no driver
  int runtime_version = 0;  ///< the CUDA that runs in this program
  std::vector<Device> devices;
  std::string problem;  ///< why there are none, for people; empty if there are
};

/// local.
DeviceFacts find_devices();

/// Free and all memory of the device in use [bytes]; empty without one. local.
struct DeviceMemory {
  std::int64_t free_bytes = 0;
  std::int64_t total_bytes = 0;
};
std::optional<DeviceMemory> device_memory();

/// "13.0" for 13000.
std::string cuda_version_text(int version);

/// Which device a rank takes: in turn by its number on its node. A launcher that shows each rank a
/// device of its own leaves one to choose from. @pre num_devices > 0. local.
int device_of_rank(int rank_on_node, int num_devices);

/// The number that the launcher gave this process on its node, by the variables of Open MPI, MPICH
/// (Hydra, PALS), MVAPICH and Slurm; empty without any. local.
std::optional<int> launcher_rank_on_node();

/// Whether MPI takes pointers to device memory; empty where it does not tell. local, after
/// MPI_Init.
std::optional<bool> mpi_knows_device_memory();

/// Before Kokkos starts on devices: lets it take this rank's, unless the user chose one
/// (KOKKOS_DEVICE_ID, KOKKOS_MAP_DEVICE_ID_BY). Throws Error::usage where there is none. local.
void choose_device(int rank_on_node);
/// The number of the device that Kokkos was told to take. local.
std::optional<int> chosen_device();

}  // namespace tessera::comm
