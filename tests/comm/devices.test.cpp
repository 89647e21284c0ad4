// SPDX-License-Identifier: Apache-2.0
// Which GPU a rank takes, and what is said where there is none. Runs twice: as any build does, and
// with the CUDA runtime, where a toolkit is installed; a machine with a GPU finds it.
#include "comm/devices.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>
#include <utility>

#include "base/error.hpp"

namespace tessera::comm {
namespace {

/// Sets variables for a while.
class Variables {
 public:
  explicit Variables(std::initializer_list<std::pair<const char*, const char*>> values) {
    for (const char* each : all) unsetenv(each);
    for (const auto& [name, value] : values) setenv(name, value, 1);
  }
  ~Variables() {
    for (const char* each : all) unsetenv(each);
  }

 private:
  static constexpr std::array all{
      "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",           "SLURM_LOCALID",
      "PALS_LOCAL_RANKID",          "MV2_COMM_WORLD_LOCAL_RANK", "PMI_LOCAL_RANK",
      "KOKKOS_DEVICE_ID",           "MPICH_GPU_SUPPORT_ENABLED"};
};

}  // namespace

TEST_CASE("Ranks of a node take its devices in turn") {
  CHECK(device_of_rank(0, 4) == 0);
  CHECK(device_of_rank(3, 4) == 3);
  CHECK(device_of_rank(5, 4) == 1);
  CHECK(device_of_rank(7, 1) == 0);
}

TEST_CASE("The launcher's number on the node is found, and nonsense is none") {
  {
    const Variables none({});
    CHECK(!launcher_rank_on_node().has_value());
  }
  {
    const Variables slurm({{"SLURM_LOCALID", "3"}});
    CHECK(launcher_rank_on_node() == 3);
  }
  {
    const Variables both({{"SLURM_LOCALID", "0"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "2"}});
    CHECK(launcher_rank_on_node() == 2);
  }
  const Variables nonsense({{"MPI_LOCALRANKID", "-1"}, {"PMI_LOCAL_RANK", "x"}});
  CHECK(!launcher_rank_on_node().has_value());
}

TEST_CASE("Cray's switch tells whether MPI takes device pointers") {
  {
    const Variables on({{"MPICH_GPU_SUPPORT_ENABLED", "1"}});
    CHECK(mpi_knows_device_memory() == true);
  }
  const Variables off({{"MPICH_GPU_SUPPORT_ENABLED", "0"}});
  CHECK(mpi_knows_device_memory() == false);
}

TEST_CASE("A device is chosen for Kokkos, or it is said in plain words why there is none") {
  const Variables none({});
  const DeviceFacts facts = find_devices();
  CHECK(facts.devices.empty() == !facts.problem.empty());
  if (!facts.devices.empty()) {
    choose_device(1);
    CHECK(chosen_device() == device_of_rank(1, static_cast<int>(facts.devices.size())));
    CHECK(facts.devices.front().total_bytes > 0);
    return;
  }
  std::string text;
  try {
    choose_device(0);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    text = error.what();
  }
  INFO(text);
  CHECK(text.find(facts.problem) != std::string::npos);
  CHECK(!chosen_device().has_value());
  CHECK(!device_memory().has_value());
  CHECK((facts.problem.find("NVIDIA driver") != std::string::npos ||
         facts.problem.find("shows no GPU") != std::string::npos) == facts.built_for_devices);
  CHECK((facts.problem.find("built without CUDA") != std::string::npos) ==
        !facts.built_for_devices);
}

TEST_CASE("Versions of CUDA are written as NVIDIA writes them") {
  CHECK(cuda_version_text(13000) == "13.0");
  CHECK(cuda_version_text(12060) == "12.6");
}

}  // namespace tessera::comm
