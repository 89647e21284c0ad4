// SPDX-License-Identifier: Apache-2.0
// MPI and Kokkos for the life of a program: adopts what its host started, starts and stops the
// rest.
#pragma once

#include <mpi.h>

#include <string>

namespace tessera::comm {

struct EnvironmentOptions {
  /// Lowest MPI thread level that will do; MPI_THREAD_MULTIPLE is asked for.
  int required_thread_level = MPI_THREAD_FUNNELED;
  /// Of a host whose MPI runs: its rank 0 speaks for all in the log, its ranks are those of dumps.
  MPI_Comm communicator = MPI_COMM_WORLD;
  /// Whether the process's environment may get what Open MPI reads from it when MPI is started.
  bool sets_variables = true;
  /// A build for GPUs on a rank that finds none: Kokkos is not started, instead of an error.
  bool may_lack_device = false;
};

/// Throws Error::usage, with MPI's names, if `level` is below `required`. local.
void require_thread_level(int level, int required);

/// One per process, first thing in main (or in the host code). It starts MPI and Kokkos unless they
/// run already and ends only what it started. If it is destroyed while an exception unwinds, it
/// does not finalise (other ranks may hang in it): the app aborts the job instead.
class Environment {
 public:
  /// Starts MPI if needed: chooses ROMIO for MPI-IO and yielding waits unless the user chose
  /// otherwise. collective over MPI_COMM_WORLD if it starts MPI, else local. Throws Error::usage if
  /// a running MPI has a thread level below the required one, and where an earlier Environment has
  /// ended MPI or Kokkos, which start once in a process.
  Environment(int& argc, char**& argv, EnvironmentOptions options = {});
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  bool started_mpi() const { return started_mpi_; }
  bool started_kokkos() const { return started_kokkos_; }
  int thread_level() const { return thread_level_; }

 private:
  bool started_mpi_ = false;
  bool started_kokkos_ = false;
  int thread_level_ = 0;
  int exceptions_at_start_ = 0;
};

/// Rank and number of ranks as the launcher (mpirun, srun) told this process, -1 without one: known
/// before MPI starts. local.
int launcher_rank();
int launcher_size();

/// Ends all ranks of the job with exit code `code`; what was printed before is flushed, and rank 0
/// gets a moment to print what all ranks throw alike. For apps: a library throws instead. local.
[[noreturn]] void abort_job(int code);

/// Open MPI's name of ROMIO for OMPI_MCA_io, in the version that this was compiled with; empty for
/// other MPIs and for Open MPI 6, which has none. local.
const char* romio_component();

}  // namespace tessera::comm
