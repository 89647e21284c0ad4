// SPDX-License-Identifier: Apache-2.0
// A training run that its host drives step by step, for codes that link Tessera: no signals, no
// loop and no files but those that are asked for. The program's run is run_training().
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "comm/process_grid.hpp"
#include "tessera/checkpoint/fields.hpp"
#include "tessera/trainer/metrics.hpp"
#include "tessera/trainer/training_run.hpp"

namespace tessera::trainer {

/// Options from TOML text: the keys are the long options of `tessera train` (model, data,
/// sequence-length, steps, batch, lr, ...), without a table. Throws Error::usage naming a key that
/// is not known or has a wrong value. local.
TrainingOptions parse_training_options(std::string_view toml);

class Trainer {
 public:
  /// Opens model (or what options.resume names) and data, and loads this rank's shards. Of the
  /// options what concerns steps, data, arithmetic and load counts; output, the periods of saves
  /// and of the log are the host's business. The grid must outlive the trainer. collective over
  /// grid.world(); errors are the same on all ranks.
  static std::unique_ptr<Trainer> create(const comm::ProcessGrid& grid, TrainingOptions options);
  virtual ~Trainer() = default;

  /// One optimizer step on the next batch. metrics.dropped: nothing was updated, since a gradient
  /// was not finite or no label takes part. collective over grid.world(); errors are agreed.
  virtual StepMetrics step() = 0;
  /// Mean loss over the held-out sequences [nat]; Error::usage if there are none. collective over
  /// grid.world(); errors are agreed.
  virtual double evaluate() = 0;
  /// Writes a Tessera file to go on from, with `fields` of the host beside the model. collective
  /// over grid.world(); errors are agreed.
  virtual void save(const std::filesystem::path& path,
                    std::span<const checkpoint::Field> fields = {}) = 0;
  /// Writes a Hugging Face directory. collective over grid.world(); errors are agreed.
  virtual void export_hugging_face(const std::filesystem::path& directory) = 0;

  virtual const model::ModelConfig& config() const = 0;        ///< local
  virtual const checkpoint::TrainingState& state() const = 0;  ///< where the run stands. local
};

}  // namespace tessera::trainer
