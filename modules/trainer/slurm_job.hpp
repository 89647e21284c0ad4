// SPDX-License-Identifier: Apache-2.0
// What Slurm says of jobs: the environment that it gives a task, and squeue, which is asked with a
// time limit of its own. All functions are local; those that ask squeue may take ten seconds.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tessera::trainer {

/// A task's place in Slurm; `job` is empty outside of it.
struct SlurmJob {
  std::string cluster, job, step;
  int restart = 0;  ///< how often the job was requeued
};
/// Of this process.
SlurmJob own_slurm_job();

enum class JobState {
  active,   ///< has nodes
  absent,   ///< waits, has ended, or Slurm does not know it any more
  unknown,  ///< squeue is missing or did not answer
};
/// Of the own cluster. A name with other signs than digits and [_.+] is unknown.
JobState slurm_job_state(const std::string& job);
JobState slurm_step_state(const std::string& job, const std::string& step);

/// Until the own job's end [s]; nothing without a job or without a limit.
std::optional<double> slurm_time_left_s();

/// "90", seconds, or as Slurm writes time: "1:30", "0:01:30", "0-00:01:30". Nothing if it is
/// neither.
std::optional<double> parse_duration(std::string_view text);

}  // namespace tessera::trainer
