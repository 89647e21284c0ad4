// SPDX-License-Identifier: Apache-2.0
// Where a training step spends its time, over all ranks: a table, JSON, and a Chrome trace.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/phase_timer.hpp"
#include "comm/process_grid.hpp"

namespace tessera::trainer {

/// One number of each rank.
struct OverRanks {
  double min = 0.0;
  double mean = 0.0;
  double max = 0.0;
};
/// collective over world.
OverRanks over_ranks(const comm::Communicator& world, double value);

/// What the grid's communicators carry in training steps, and in nothing between them.
class StepTraffic {
 public:
  explicit StepTraffic(const comm::ProcessGrid& grid);
  void begin_step();
  void end_step();

  std::int64_t num_steps() const { return num_steps_; }
  const std::vector<const comm::Communicator*>& communicators() const { return communicators_; }
  /// Of the communicator with that index, summed over the steps. local.
  const comm::Traffic& sum(std::size_t index) const { return sums_[index]; }

 private:
  std::vector<const comm::Communicator*> communicators_;
  std::vector<comm::Traffic> sums_;
  std::int64_t num_steps_ = 0;
};

struct StepProfile {
  /// Of one communicator, per step. @see comm::Traffic
  struct TrafficRow {
    std::string communicator;
    OverRanks logical_mib, moved_mib;
    double hidden = 0.0;  ///< share of the time in flight in which no rank waited; mean over ranks
  };
  struct Row {
    StepPhase phase;
    OverRanks ms;        ///< per step, without inner phases
    double share = 0.0;  ///< mean / mean of the step
  };
  int num_ranks = 0;
  std::int64_t num_steps = 0;
  OverRanks step_ms;
  std::vector<TrafficRow> traffic;
  std::vector<Row> rows;  ///< phases that some rank was in; their means add up to the step's
  /// [layers with experts, E] how often each expert was chosen in the last step, where that is
  /// known.
  std::vector<std::int64_t> expert_choices;
};

/// collective over world.
StepProfile step_profile(const comm::Communicator& world, const PhaseTimer& timer);
/// The same with the traffic. collective over world.
StepProfile step_profile(const comm::Communicator& world, const PhaseTimer& timer,
                         const StepTraffic& traffic);

/// Tables for people. local.
std::string traffic_table(const std::vector<StepProfile::TrafficRow>& rows);
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
