// SPDX-License-Identifier: Apache-2.0
// What each rank of a training run will own and read, from headers alone. How much memory it will
// need is tessera/study/memory_plan.hpp's.
#pragma once

#include <string>
#include <vector>

#include "tessera/trainer/model_state.hpp"

namespace tessera::trainer {

/// Of one rank.
struct RankPlan {
  std::int64_t num_parameters = 0;  ///< that it owns
  std::int64_t read_bytes = 0;      ///< from the checkpoint
};

/// The plans of all ranks, in their order, the same on all ranks. collective over grid.world();
/// errors are agreed.
std::vector<RankPlan> plan_run(const comm::ProcessGrid& grid, ModelSource& model);

/// A table of at most 16 ranks, then the sums of all. local.
std::string describe(const std::vector<RankPlan>& plans);

}  // namespace tessera::trainer
