// SPDX-License-Identifier: Apache-2.0
// Where a training step spends its time, over all ranks: a table, JSON, and a Chrome trace.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/phase_timer.hpp"
#include "comm/communicator.hpp"

namespace tessera::trainer {

/// One number of each rank.
struct OverRanks {
  double min = 0.0;
  double mean = 0.0;
  double max = 0.0;
};
/// collective over world.
OverRanks over_ranks(const comm::Communicator& world, double value);

struct StepProfile {
  struct Row {
    StepPhase phase;
    OverRanks ms;        ///< per step, without inner phases
    double share = 0.0;  ///< mean / mean of the step
  };
  int num_ranks = 0;
  std::int64_t num_steps = 0;
  OverRanks step_ms;
  std::vector<Row> rows;  ///< phases that some rank was in; their means add up to the step's
};

/// collective over world.
StepProfile step_profile(const comm::Communicator& world, const PhaseTimer& timer);

/// Table for people. local.
std::string describe(const StepProfile& profile);
/// local.
std::string to_json(const StepProfile& profile);

/// The kept steps of all ranks in Chrome's trace format (chrome://tracing, ui.perfetto.dev): a
/// process per rank. Empty but on rank 0. The timers of all ranks must have been made at the same
/// time, e.g. after a barrier: their clocks start there. collective over world.
std::string chrome_trace(const comm::Communicator& world, const PhaseTimer& timer);

/// Writes profile.json and trace.json into `directory`. collective over world; errors are agreed.
void write_profile(const comm::Communicator& world, const PhaseTimer& timer,
                   const StepProfile& profile, const std::filesystem::path& directory);

}  // namespace tessera::trainer
