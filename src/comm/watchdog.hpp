// SPDX-License-Identifier: Apache-2.0
// Knows what this rank is doing and since when. Waits inside Communicator check their own deadline;
// the watchdog thread covers calls that cannot be interrupted (HDF5, MPI_Init, MPI_Finalize) and
// prints where every rank stood.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace tessera::comm {

/// A named stretch of work with a deadline, e.g. "write checkpoint". Nests. local.
/// Past its deadline the watchdog calls the expiry hook once with a dump: rank, phases, step, the
/// last collective that was begun and whether it ended.
class Phase {
 public:
  /// Deadline zero: no deadline of its own, only a name in the dump.
  explicit Phase(std::string name,
                 std::chrono::milliseconds deadline = std::chrono::milliseconds(0));
  ~Phase();
  Phase(const Phase&) = delete;
  Phase& operator=(const Phase&) = delete;

 private:
  long long id_ = 0;
};

/// Work that goes on by itself, e.g. on a device, and that nobody on the host waits for.
struct Watched {
  std::string what;                    ///< for the dump
  std::chrono::milliseconds deadline;  ///< from now on
  std::function<bool()> done;          ///< asked now and then by the watching thread; may throw
};
/// Forgets it once it is done. Past its deadline, or when done() or any device collectives tell an
/// error, all device collectives are aborted and the expiry hook is called. local.
void watch(Watched watched);

/// What happens when a phase passes its deadline. Default: print the dump on stderr and abort the
/// MPI job; a library installs its caller's hook instead. local.
void set_expiry_hook(std::function<void(const std::string& dump)> hook);

/// The deadline where the caller names none: TESSERA_DEADLINE_S (seconds) or ten minutes. Throws
/// Error::usage if the variable is not a positive number. local.
std::chrono::milliseconds default_deadline();

/// Rank of this process in the job, for dumps; set by Environment. local.
void set_job_rank(int rank);

/// Number of the training step, for dumps. local.
void set_current_step(long long step);

/// Called by Communicator around each collective. local.
void note_collective_begin(std::string_view communicator, std::string_view operation,
                           std::string_view what);
void note_collective_end();  ///< the one begun last is complete, or runs on by itself. local.

/// `"rank 2, step 17, phase 'backward', in all_gather 'layers.3.expert' on replica for 3.2 s"`.
/// local.
std::string where_am_i();

}  // namespace tessera::comm
