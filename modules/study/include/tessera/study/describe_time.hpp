// SPDX-License-Identifier: Apache-2.0
// Times and traffic of plans as text.
#pragma once

#include <string>
#include <vector>

#include "tessera/study/grid_choice.hpp"
#include "tessera/study/traffic.hpp"

namespace tessera::study {

/// "1.25 s", "310 ms", "14.2 us", "3.4 h". local.
std::string describe_seconds(double seconds);
/// A table of phases with what binds each, and the step. local.
std::string describe(const StepTime& time);
/// One line per communicator. local.
std::string describe(const PlannedTraffic& traffic);
/// One line: how often to save, and why. local.
std::string describe(const CheckpointInterval& interval);

/// The best grid of each number of ranks.
struct RankCountPlan {
  RunShape shape;
  std::optional<GridPlan> best;  ///< none: no grid fits
};
/// A table of numbers of ranks: grid, step, efficiency against the first line. local.
std::string describe(const std::vector<RankCountPlan>& plans);

}  // namespace tessera::study
