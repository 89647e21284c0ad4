// SPDX-License-Identifier: Apache-2.0
#include "comm/devices.hpp"

#include <mpi.h>
#if defined(OPEN_MPI) && __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include <cstdlib>
#include <string_view>

#include "base/contract.hpp"
#include "base/error.hpp"

namespace tessera::comm {
namespace {

constexpr int kKeepUserChoice = 0;

bool is_set(const char* variable) {
  const char* text = std::getenv(variable);
  return text != nullptr && *text != '\0';
}

std::optional<int> number_in(const char* variable) {
  if (!is_set(variable)) return std::nullopt;
  char* end = nullptr;
  const long number = std::strtol(std::getenv(variable), &end, 10);
  if (*end != '\0' || number < 0) return std::nullopt;
  return static_cast<int>(number);
}

}  // namespace

std::string cuda_version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

int device_of_rank(int rank_on_node, int num_devices) {
  TESSERA_EXPECT(num_devices > 0 && rank_on_node >= 0);
  return rank_on_node % num_devices;
}

std::optional<int> launcher_rank_on_node() {
  for (const char* variable : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PALS_LOCAL_RANKID",
                               "MV2_COMM_WORLD_LOCAL_RANK", "PMI_LOCAL_RANK", "SLURM_LOCALID"}) {
    if (const auto rank = number_in(variable)) return rank;
  }
  return std::nullopt;
}

std::optional<bool> mpi_knows_device_memory() {
  // Cray MPICH has no call that tells; the variable switches it on.
  if (is_set("MPICH_GPU_SUPPORT_ENABLED")) {
    return std::string_view(std::getenv("MPICH_GPU_SUPPORT_ENABLED")) == "1";
  }
#if defined(MPIX_CUDA_AWARE_SUPPORT)
  return MPIX_Query_cuda_support() == 1;
#elif defined(MPIX_GPU_SUPPORT_CUDA)
  int knows = 0;
  if (MPIX_GPU_query_support(MPIX_GPU_SUPPORT_CUDA, &knows) != MPI_SUCCESS) return std::nullopt;
  return knows != 0;
#else
  return std::nullopt;
#endif
}

void choose_device(int rank_on_node) {
  const DeviceFacts facts = find_devices();
  if (facts.devices.empty()) {
    fail(ErrorKind::usage,
         "this Tessera computes on NVIDIA GPUs and finds none: {} (one built without TESSERA_CUDA "
         "computes on processors)",
         facts.problem);
  }
  if (is_set("KOKKOS_DEVICE_ID") || is_set("KOKKOS_MAP_DEVICE_ID_BY")) return;
  const int device = device_of_rank(rank_on_node, static_cast<int>(facts.devices.size()));
  setenv("KOKKOS_DEVICE_ID", std::to_string(device).c_str(), kKeepUserChoice);
}

std::optional<int> chosen_device() { return number_in("KOKKOS_DEVICE_ID"); }

}  // namespace tessera::comm
