// SPDX-License-Identifier: Apache-2.0
// What a training run will read and how much memory it will need, from headers alone.
#pragma once

#include <string>
#include <vector>

#include "tessera/trainer/training_run.hpp"

namespace tessera::trainer {

/// Of one rank. Memory that MPI, HDF5 and the program itself take is not in it.
struct RankPlan {
  std::int64_t num_parameters = 0;    ///< that it owns
  std::int64_t read_bytes = 0;        ///< from the checkpoint
  std::int64_t state_bytes = 0;       ///< master weights, gradient shards, optimizer state, scales
  std::int64_t gathered_bytes = 0;    ///< whole units and their gradients in use at one time
  std::int64_t activation_bytes = 0;  ///< of one micro-batch, experts equally loaded

  std::int64_t memory_bytes() const { return state_bytes + gathered_bytes + activation_bytes; }
};

/// The plans of all ranks, in their order, the same on all ranks. `sequence_length` and the
/// sequences of a micro-batch follow from `options` (0 tokens if options.data is empty).
/// collective over grid.world(); errors are agreed.
std::vector<RankPlan> plan_run(const comm::ProcessGrid& grid, ModelSource& model,
                               const TrainingOptions& options);

/// A table of at most 16 ranks, then the sums or the largest of all.
std::string describe(const std::vector<RankPlan>& plans);

}  // namespace tessera::trainer
