// SPDX-License-Identifier: Apache-2.0
// What a run of steps consists of, whoever drives it: data, shards, model and optimizer, and how
// far it has come. Log, signals, files and when to stop are the driver's: run_training(), Trainer.
#pragma once

#include "tessera/trainer/batch_reader.hpp"
#include "tessera/trainer/metrics.hpp"
#include "tessera/trainer/sampler.hpp"
#include "tessera/trainer/training_run.hpp"

namespace tessera::trainer {

template <class T>
class TrainingSession {
 public:
  /// Opens the data and makes shards and model; loads nothing. `grid` and `options` must outlive
  /// it. collective over grid.world(); errors are the same on all ranks.
  TrainingSession(const comm::ProcessGrid& grid, const TrainingOptions& options,
                  ModelSource source);

  /// Parameters and, when resuming, the optimizer's state. collective; errors are agreed.
  checkpoint::LoadReport load(const BeforeUnit& before_unit = [] {});

  struct Step {
    StepMetrics metrics;
    std::int64_t num_targets = 0;  ///< over all ranks
  };
  /// One optimizer step on the next batch. collective; errors are agreed.
  Step step();
  /// Mean loss over the held-out sequences [nat]; 0 without targets. collective; errors are agreed.
  double evaluate();
  /// collective; errors are agreed.
  void save(const std::filesystem::path& path,
            std::span<const checkpoint::Field> fields = {}) const;
  void export_hugging_face(const std::filesystem::path& directory) const;

  const ModelSource& source() const { return source_; }
  const model::ModelConfig& config() const { return source_.config; }
  TokenData& data() { return data_; }
  const Sampler& sampler() const { return sampler_; }
  const zero3::ParameterStore<T>& store() const { return store_; }
  const checkpoint::TrainingState& state() const { return state_; }
  std::int64_t total_steps() const { return total_steps_; }  ///< of the schedule

 private:
  bool resumes() const { return !options_.resume.empty(); }
  checkpoint::TrainingState starting_state() const;
  TokenDataOptions data_options() const;
  ScheduleOptions schedule_options() const;

  const comm::ProcessGrid& grid_;
  const TrainingOptions& options_;
  ModelSource source_;
  checkpoint::TrainingState state_;
  TokenData data_;
  Sampler sampler_;
  BatchReader reader_;
  zero3::ParameterStore<T> store_;
  model::Transformer<T> model_;
  std::int64_t total_steps_;
  Schedule schedule_;
};

}  // namespace tessera::trainer
