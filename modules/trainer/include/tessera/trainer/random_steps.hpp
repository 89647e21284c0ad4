// SPDX-License-Identifier: Apache-2.0
// Training steps of a model with random weights on random tokens: what they cost depends on its
// shape alone, so that no checkpoint is read.
#pragma once

#include <optional>

#include "base/dtype.hpp"
#include "comm/process_grid.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/transformer.hpp"
#include "tessera/trainer/step_profile.hpp"

namespace tessera::trainer {

struct RandomSteps {
  Dtype dtype = Dtype::f32;  ///< of the arithmetic: f32 or bf16
  model::Recompute recompute = model::Recompute::none;
  std::int64_t batch = 1;   ///< sequences over all ranks
  std::int64_t length = 0;  ///< positions of each
  std::int64_t num_steps = 1;
  /// Of routers with biases (gpt-oss): experts are chosen by Zipf's law with this exponent, in an
  /// order that differs between layers; 0: alike. None: as the random router has it. Throws
  /// Error::usage for other families.
  std::optional<double> zipf;
};

/// Full steps with AdamW and clipping; one more goes before, and is not counted. collective over
/// grid.world().
StepProfile profile_random_steps(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                                 const RandomSteps& options);

}  // namespace tessera::trainer
