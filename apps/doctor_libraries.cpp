// SPDX-License-Identifier: Apache-2.0
// The doctor's look at the libraries.
#include <hdf5.h>
#include <mpi.h>
#include <oneapi/dnnl/dnnl.h>

#include <Kokkos_Core.hpp>
#include <array>
#include <cstdlib>

#include "comm/environment.hpp"
#include "doctor.hpp"
#include "kernel/gemm.hpp"

namespace tessera::apps {
namespace {

std::string thread_level_name(int level) {
  switch (level) {
    case MPI_THREAD_SINGLE: return "single";
    case MPI_THREAD_FUNNELED: return "funneled";
    case MPI_THREAD_SERIALIZED: return "serialized";
    default: return "multiple";
  }
}

/// Open MPI's choice of MPI-IO component, by its control variable; empty elsewhere.
std::string io_component() {
  int provided = 0, index = 0, count = 0;
  if (MPI_T_init_thread(MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS) return {};
  std::array<char, 256> value{};
  MPI_T_cvar_handle handle;
  if (MPI_T_cvar_get_index("io", &index) == MPI_SUCCESS &&
      MPI_T_cvar_handle_alloc(index, nullptr, &handle, &count) == MPI_SUCCESS) {
    if (count > 0 && count < static_cast<int>(value.size())) MPI_T_cvar_read(handle, value.data());
    MPI_T_cvar_handle_free(&handle);
  }
  MPI_T_finalize();
  const char* chosen = std::getenv("OMPI_MCA_io");
  return value[0] == '\0' && chosen != nullptr ? std::string(chosen) : std::string(value.data());
}

void examine_mpi(DoctorReport& report) {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0, level = 0;
  MPI_Get_library_version(text.data(), &length);
  MPI_Query_thread(&level);
  std::string library(text.data());
  library.resize(std::min(library.find_first_of(",\n"), library.size()));
  const std::string component = io_component();
  report.lines.emplace_back("MPI",
                            fmt::format("{}, thread level {}{}", library, thread_level_name(level),
                                        component.empty() ? "" : ", MPI-IO by " + component));
  const std::string romio = comm::romio_component();
  if (!romio.empty() && !component.starts_with("romio")) {
    report.warnings.push_back(
        fmt::format("MPI-IO is not by ROMIO (collective reads and writes of checkpoints are up to "
                    "three times slower); set OMPI_MCA_io={}, or ^ompio",
                    romio));
  }
}

void examine_hdf5(DoctorReport& report) {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
#ifdef H5_HAVE_PARALLEL
  const bool is_parallel = true;
#else
  const bool is_parallel = false;
#endif
  report.lines.emplace_back("HDF5", fmt::format("{}.{}.{}, {}", major, minor, release,
                                                is_parallel ? "parallel" : "serial"));
  if (!is_parallel) {
    report.failures.push_back(
        "HDF5 was built without MPI (checkpoints are read and written by all ranks together); "
        "install "
        "libhdf5-openmpi-dev and build again");
  }
  if (major != H5_VERS_MAJOR || minor != H5_VERS_MINOR) {
    report.warnings.push_back(
        fmt::format("HDF5 {}.{} runs, Tessera was built with {}.{}; build again", major, minor,
                    H5_VERS_MAJOR, H5_VERS_MINOR));
  }
}

void examine_kokkos(DoctorReport& report) {
  using Space = Kokkos::DefaultExecutionSpace;
  const std::string threads = Kokkos::is_initialized()
                                  ? fmt::format("{} thread(s)", Space().concurrency())
                                  : "not started, for want of a device";
  report.lines.emplace_back(
      "Kokkos", fmt::format("{}.{}.{}, {}, {}", KOKKOS_VERSION / 10000, KOKKOS_VERSION / 100 % 100,
                            KOKKOS_VERSION % 100, Space::name(), threads));
}

const char* runtime_name(unsigned runtime) {
  switch (runtime) {
    case DNNL_RUNTIME_OMP: return "OpenMP";
    case DNNL_RUNTIME_SEQ: return "sequential";
    case DNNL_RUNTIME_TBB: return "TBB";
    default: return "another runtime";
  }
}

void examine_onednn(DoctorReport& report) {
  const dnnl_version_t& version = *dnnl_version();
  report.lines.emplace_back(
      "oneDNN", fmt::format("{}.{}.{}, {}, {}, bf16 instructions: {}", version.major, version.minor,
                            version.patch, runtime_name(version.cpu_runtime), instruction_set(),
                            has_bf16_instructions() ? "yes" : "no"));
  if (!has_bf16_instructions()) {
    report.warnings.push_back(
        "no bf16 instructions (--dtype bf16 works, but products are converted and slow); --dtype "
        "f32 may be "
        "faster here");
  }
}

}  // namespace

// oneDNN's instruction sets are bit sets: each contains those it is built on.
bool has_bf16_instructions() {
  const auto isa = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
  const auto bf16 = static_cast<unsigned>(dnnl_cpu_isa_avx512_core_bf16);
  return (isa & bf16) == bf16;
}

std::string instruction_set() {
  const auto isa = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
  const std::array<std::pair<dnnl_cpu_isa_t, const char*>, 6> known{{
      {dnnl_cpu_isa_avx512_core_amx, "AVX-512 with AMX"},
      {dnnl_cpu_isa_avx512_core_bf16, "AVX-512 with bf16"},
      {dnnl_cpu_isa_avx512_core_vnni, "AVX-512 with VNNI"},
      {dnnl_cpu_isa_avx512_core, "AVX-512"},
      {dnnl_cpu_isa_avx2, "AVX2"},
      {dnnl_cpu_isa_sse41, "SSE4.1"},
  }};
  for (const auto& [bits, name] : known) {
    if ((isa & static_cast<unsigned>(bits)) == static_cast<unsigned>(bits)) return name;
  }
  return fmt::format("instruction set {:#x}", isa);
}

void examine_libraries(DoctorReport& report) {
  report.lines.emplace_back(
      "products", fmt::format("f32 by oneDNN, bf16 by {}", kernel::bf16_product_backend()));
  examine_mpi(report);
  examine_hdf5(report);
  examine_kokkos(report);
  examine_onednn(report);
}

}  // namespace tessera::apps
