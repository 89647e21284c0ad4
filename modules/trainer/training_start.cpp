// SPDX-License-Identifier: Apache-2.0
// Where a run begins and ends: the model or checkpoint that it starts from, and its last step.
#include <algorithm>
#include <tessera/trainer/training_run.hpp>

#include "base/error.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"

namespace tessera::trainer {

std::int64_t last_step(std::int64_t num_steps, std::int64_t total_steps, std::int64_t done) {
  return std::max(done, std::min(num_steps > done ? num_steps : done + num_steps, total_steps));
}

ModelSource open_start(const comm::ProcessGrid& grid, const TrainingOptions& options) {
  if (options.resume.empty()) return open_model(grid.world(), options.model, options.keys);
  const auto path = resume_path(grid.world(), options.resume);
  ModelSource model = open_model(grid.world(), path, options.keys);
  if (model.source->kind() != std::string("Tessera file")) {
    fail(ErrorKind::usage, "cannot resume from {}, a {} (it has no step and no optimizer state)",
         path.string(), model.source->kind());
  }
  if (options.model.empty()) return model;
  const auto given =
      checkpoint::Source::open(grid.world(), model_path(grid.world(), options.model));
  if (given->config_json() != model.source->config_json()) {
    fail(ErrorKind::config,
         "{} and {} have different configurations (a run goes on with the model that it began "
         "with); "
         "leave MODEL out when resuming",
         options.model.string(), path.string());
  }
  return model;
}

TrainingOptions continued(const comm::Communicator& world, TrainingOptions options) {
  if (options.continues && has_latest(world, options.output)) options.resume = options.output;
  return options;
}

}  // namespace tessera::trainer
