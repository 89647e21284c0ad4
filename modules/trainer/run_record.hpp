// SPDX-License-Identifier: Apache-2.0
// What decides a run's result beside the model and its weights, kept in every checkpoint: a resumed
// run says where it departs from the run that it goes on with.
#pragma once

#include <string>

#include "tessera/checkpoint/hdf5_store.hpp"
#include "tessera/trainer/token_data.hpp"
#include "tessera/trainer/training_run.hpp"

namespace tessera::trainer {

/// JSON text for TrainingState::training_json. local.
std::string run_record(const TrainingOptions& options, std::int64_t total_steps,
                       const TokenData& data);

/// The schedule's length as an earlier run recorded it; 0 if it did not. local.
std::int64_t recorded_total_steps(const checkpoint::TrainingState& earlier);

/// Throws Error::usage if the optimizer is another one than that of the checkpoint. Warns of every
/// other recorded value that has changed. local, the same on all ranks.
void compare_with_record(const checkpoint::TrainingState& earlier, const TrainingOptions& options,
                         const std::string& record);

}  // namespace tessera::trainer
