// SPDX-License-Identifier: Apache-2.0
// A whole training run: load or resume, steps, evaluation, metrics, checkpoints, stop on a signal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "base/dtype.hpp"
#include "comm/process_grid.hpp"
#include "tessera/checkpoint/key_report.hpp"
#include "tessera/model/transformer.hpp"
#include "tessera/trainer/model_state.hpp"
#include "tessera/trainer/schedule.hpp"
#include "tessera/trainer/stop_request.hpp"
#include "tessera/trainer/time_limit.hpp"
#include "tessera/trainer/token_data.hpp"
#include "tessera/zero3/optimizer.hpp"
#include "tessera/zero3/parameter_store.hpp"

namespace tessera::trainer {

struct TrainingOptions {
  std::filesystem::path
      model;  ///< Hugging Face directory or Tessera file; may be empty with resume
  std::filesystem::path
      resume;              ///< output directory of an earlier run, or a Tessera file; may be empty
  bool continues = false;  ///< resume from output, if it has a checkpoint
  std::filesystem::path output;  ///< directory for metrics, checkpoints and the loss curve
  std::filesystem::path data;
  TokenDataOptions data_options;
  checkpoint::KeyOptions keys;

  std::int64_t num_steps = 100;  ///< step to stop after; see last_step()
  std::int64_t total_steps =
      0;  ///< the schedule's length; 0: that of the resumed run, or num_steps if that is more
  std::int64_t batch = 1;           ///< sequences of one step, over all ranks
  std::int64_t micro_batch = 0;     ///< sequences of one rank at a time; 0: all of its share
  std::int64_t num_held_out = 0;    ///< last sequences of the data, for evaluation alone
  std::int64_t evaluate_every = 0;  ///< steps; 0: never
  std::int64_t save_every = 0;      ///< steps; 0: at the end alone
  std::int64_t num_kept = 0;        ///< checkpoints to keep, the newest; 0: all
  bool saves_at_end = true;         ///< an interrupted run saves in any case
  std::int64_t log_every = 10;      ///< steps between lines of the table
  TimeLimitOptions time_limit;
  std::uint64_t seed = 0;

  Dtype dtype = Dtype::f32;  ///< of gathered parameters and activations: f32 or bf16
  zero3::GradientTransport gradient_transport = zero3::GradientTransport::f32;
  model::Recompute recompute = model::Recompute::none;
  zero3::OptimizerOptions optimizer;
  ScheduleOptions schedule;  ///< total_steps in it is filled in
  double max_grad_norm = 1.0;
  double aux_coefficient = 0.0;
  checkpoint::LoadOptions load;
  Verify verify = Verify::yes;             ///< after the load
  std::filesystem::path export_directory;  ///< Hugging Face directory written at the end, or empty
  checkpoint::ExportOptions export_options;
  /// What was foretold of the run's memory, for people, from the model and the positions of a
  /// sequence; may be empty. local, alike on all ranks.
  std::function<std::string(const model::ModelConfig&, std::int64_t length)> foretell_memory;
  bool profile = false;  ///< time the phases of the steps; profile.json and trace.json at the end
};

/// Where a run that starts after `done` steps ends: num_steps, or, if that has been reached
/// already, num_steps more, but never past the schedule's length. local.
std::int64_t last_step(std::int64_t num_steps, std::int64_t total_steps, std::int64_t done);

struct TrainingSummary {
  std::int64_t first_step = 0;  ///< steps done before this run
  std::int64_t last_step = 0;   ///< steps done now
  double first_loss = 0.0;
  double last_loss = 0.0;
  StopReason stopped = StopReason::none;  ///< why it ended early; the checkpoint is complete
  std::filesystem::path checkpoint;       ///< the last one written; empty if none
};

/// The options with `resume` filled in where they say to continue and there is a checkpoint.
/// collective over world.
TrainingOptions continued(const comm::Communicator& world, TrainingOptions options);

/// The model that a run would start from; when resuming, options.model (if given) must describe the
/// same one. collective over grid.world(); errors are the same on all ranks.
ModelSource open_start(const comm::ProcessGrid& grid, const TrainingOptions& options);

/// Holds the lock of options.output meanwhile. A stop while the model is being loaded is
/// Error::interrupted. collective over grid.world(); errors are the same on all ranks.
TrainingSummary run_training(const comm::ProcessGrid& grid, const TrainingOptions& options,
                             const StopRequest& stop);

}  // namespace tessera::trainer
