// SPDX-License-Identifier: Apache-2.0
// Plans for programs: JSON with units in the names of its keys.
#pragma once

#include <string>
#include <vector>

#include "tessera/study/describe_time.hpp"

namespace tessera::study {

/// Everything about one grid. Without a machine `time` and `interval` are empty.
struct GridDetails {
  RunShape shape;
  std::vector<MemoryPlan> memory;
  PlannedTraffic traffic;
  std::optional<StepTime> time;
  std::optional<CheckpointInterval> interval;
};

/// local.
std::string to_json(const GridDetails& details);
std::string to_json(const std::vector<GridPlan>& grids, std::optional<std::int64_t> limit_bytes);
std::string to_json(const std::vector<RankCountPlan>& plans);

}  // namespace tessera::study
