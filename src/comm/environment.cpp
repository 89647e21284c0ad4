// SPDX-License-Identifier: Apache-2.0
#include "comm/environment.hpp"

#include <unistd.h>

#include <Kokkos_Core.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <thread>

#include "base/error.hpp"
#include "base/log.hpp"
#include "comm/collectives.hpp"
#include "comm/devices.hpp"
#include "comm/roll_call.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {
namespace {

constexpr int kKeepUserChoice = 0;

bool kokkos_was_ended = false;  // by an Environment; Kokkos 3.4 does not say

std::string thread_level_name(int level) {
  switch (level) {
    case MPI_THREAD_SINGLE: return "MPI_THREAD_SINGLE";
    case MPI_THREAD_FUNNELED: return "MPI_THREAD_FUNNELED";
    case MPI_THREAD_SERIALIZED: return "MPI_THREAD_SERIALIZED";
    case MPI_THREAD_MULTIPLE: return "MPI_THREAD_MULTIPLE";
    default: return fmt::format("level {}", level);
  }
}

// Open MPI reads its parameters from the environment in MPI_Init. ROMIO reads and writes shared
// files faster than OMPIO where more than two ranks take part; an idle rank yields its core to the
// others.
void set_open_mpi_defaults() {
  if (romio_component()[0] != '\0') setenv("OMPI_MCA_io", romio_component(), kKeepUserChoice);
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", kKeepUserChoice);
  // Over TCP a large message is by default one write, and a peer's request for the other direction
  // waits behind it: two ranks that exchange data would send one after the other. In fragments both
  // send at once.
  setenv("OMPI_MCA_btl_tcp_flags", "send,inplace", kKeepUserChoice);
  setenv("OMPI_MCA_btl_tcp_max_send_size", "524288", kKeepUserChoice);
  // hwloc's GL plug-in resolves "localhost"; where nothing answers, every start waits for seconds.
  setenv("HWLOC_COMPONENTS", "-gl", kKeepUserChoice);
}

int first_number(std::initializer_list<const char*> variables) {
  for (const char* name : variables) {
    const char* text = std::getenv(name);
    if (text != nullptr && *text != '\0') return std::atoi(text);
  }
  return -1;
}

int start_mpi(int& argc, char**& argv, bool sets_variables) {
  if (sets_variables) set_open_mpi_defaults();
  set_job_rank(launcher_rank());
  const Phase phase("MPI_Init, for which all ranks must come: one that prints no such line has not",
                    default_deadline());
  int level = 0;
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread");
  return level;
}

constexpr bool kernels_run_on_host =
    Kokkos::SpaceAccessibility<Kokkos::HostSpace,
                               Kokkos::DefaultExecutionSpace::memory_space>::accessible;

/// MPI is asked only by who started it: in another's program not all ranks may come here.
int rank_on_node(bool may_ask) {
  if (!may_ask) return launcher_rank_on_node().value_or(0);
  MPI_Comm node = MPI_COMM_NULL;
  int rank = 0;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(node, &rank), "MPI_Comm_rank");
  MPI_Comm_free(&node);
  return rank;
}

bool mpi_is_running() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (finalized != 0) {
    fail(ErrorKind::usage,
         "MPI was finalised before tessera::comm::Environment was made (MPI cannot be "
         "started twice); make the Environment first");
  }
  return initialized != 0;
}

}  // namespace

int launcher_rank() {
  return first_number({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"});
}

int launcher_size() { return first_number({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"}); }

const char* romio_component() {
#if defined(OMPI_MAJOR_VERSION) && OMPI_MAJOR_VERSION == 5
  return "romio341";
#elif defined(OMPI_MAJOR_VERSION) && OMPI_MAJOR_VERSION == 4
  return "romio321";
#else
  return "";
#endif
}

void require_thread_level(int level, int required) {
  if (level >= required) return;
  fail(ErrorKind::usage,
       "MPI runs at {}, but {} is needed; call MPI_Init_thread with {} or higher (plain MPI_Init "
       "gives MPI_THREAD_SINGLE), or require less",
       thread_level_name(level), thread_level_name(required), thread_level_name(required));
}

Environment::Environment(int& argc, char**& argv, EnvironmentOptions options)
    : exceptions_at_start_(std::uncaught_exceptions()) {
  if (mpi_is_running()) {
    check_mpi(MPI_Query_thread(&thread_level_), "MPI_Query_thread");
  } else {
    thread_level_ = start_mpi(argc, argv, options.sets_variables);
    started_mpi_ = true;
  }
  require_thread_level(thread_level_, options.required_thread_level);
  int rank = 0, size = 1;
  check_mpi(MPI_Comm_rank(options.communicator, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(options.communicator, &size), "MPI_Comm_size");
  set_log_rank(rank, size);
  set_job_rank(rank);
  if (started_mpi_) open_roll_call();
  if (!Kokkos::is_initialized()) {
    if (kokkos_was_ended) {
      fail(ErrorKind::usage,
           "Kokkos was started and ended by Tessera in this process (it cannot be started twice); "
           "keep one Environment, or a Kokkos of your own, alive as long as Tessera is in use");
    }
    const DeviceFacts facts = find_devices();
    const bool lacks_device = facts.built_for_devices && facts.devices.empty();
    if (lacks_device && options.may_lack_device) return;
    if constexpr (!kernels_run_on_host) choose_device(rank_on_node(started_mpi_));
    Kokkos::initialize(argc, argv);
    started_kokkos_ = true;
  }
}

Environment::~Environment() {
  if (std::uncaught_exceptions() > exceptions_at_start_) return;
  if (started_kokkos_ && Kokkos::is_initialized()) {
    Kokkos::finalize();
    kokkos_was_ended = true;
  }
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!started_mpi_ || finalized != 0) return;
  const Phase phase("MPI_Finalize", default_deadline());
  close_roll_call();
  MPI_Finalize();
}

void abort_job(int code) {
  alarm(10);  // SIGALRM ends the process where a full pipe or MPI_Abort keeps it
  std::fflush(nullptr);
  int initialized = 0, finalized = 0, rank = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized != 0 && finalized == 0) {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank != 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    MPI_Abort(MPI_COMM_WORLD, code);
  }
  std::_Exit(code);
}

}  // namespace tessera::comm
