// SPDX-License-Identifier: Apache-2.0
// Between checkpoint files and the shards of a model: load, resume, save.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "comm/process_grid.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"
#include "tessera/checkpoint/hugging_face_writer.hpp"
#include "tessera/checkpoint/key_report.hpp"
#include "tessera/checkpoint/source.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/parameter_units.hpp"
#include "tessera/zero3/optimizer.hpp"
#include "tessera/zero3/parameter_store.hpp"

namespace tessera::trainer {

/// A model as a checkpoint describes it, before any tensor byte is read.
struct ModelSource {
  std::unique_ptr<checkpoint::Source> source;
  model::ModelConfig config;
  std::vector<model::ParameterUnit> units;  ///< with the names that this checkpoint has
  checkpoint::Origins origins;              ///< of the parameters that it has
  checkpoint::ScaleShards scales;      ///< of this rank's MXFP4 slices, after load_parameters()
  checkpoint::KeyOptions keys;         ///< what may differ
  checkpoint::EmbeddedFiles files;     ///< config.json, tokenizer, ...: kept with every save
  checkpoint::TrainingState training;  ///< where a Tessera file stands; step 0 otherwise

  /// Whether the checkpoint has the parameter, under whatever names; after open_model(). local.
  bool has(const Parameter& parameter) const { return origins.contains(parameter.name); }
  /// What it was in the checkpoint; bf16 where that has none of it. local.
  checkpoint::Origin origin(const Parameter& parameter) const;
};

/// The files of a Hugging Face directory beside the tensors: those of `model`, config.json as the
/// experts of `parameters` are to be written. local.
checkpoint::EmbeddedFiles exported_files(const ModelSource& model,
                                         std::span<const Parameter> parameters,
                                         const checkpoint::Origins& origins,
                                         const checkpoint::ExportOptions& options);

/// Opens MODEL (Hugging Face directory or Tessera file) and parses its configuration, without
/// looking at its keys. collective over world; errors are the same on all ranks.
ModelSource describe_model(const comm::Communicator& world, const std::filesystem::path& path,
                           const checkpoint::KeyOptions& keys);

/// The same, and compares its keys with what the model needs. collective over world; errors are the
/// same on all ranks.
ModelSource open_model(const comm::Communicator& world, const std::filesystem::path& path,
                       const checkpoint::KeyOptions& keys);

/// Throws Error::keys naming the tensor where the checkpoint has one that its configuration ties to
/// the embeddings (lm_head.weight) with other values: transformers would not tie them then, and to
/// leave it out would lose it. Reads both, if it is there; after open_model(). collective over
/// grid.world(); errors are agreed.
void require_tied(const comm::ProcessGrid& grid, const ModelSource& model);

/// Units of the model, placed on the grid, with memory for this rank's shards. collective over
/// world.
template <class T>
zero3::ParameterStore<T> make_store(
    const comm::ProcessGrid& grid, const model::ModelConfig& config,
    zero3::GradientTransport transport = zero3::GradientTransport::f32);

/// Whether a load ends with the proof that all shards together hold each expert once and as the
/// file has it.
enum class Verify { no, yes };

/// Called by a load before each unit, on all ranks; it may give the load up by an error that is the
/// same on all ranks.
using BeforeUnit = std::function<void()>;

/// Reads this rank's part of every parameter, unit by unit; parameters that may be missing are
/// initialised as KeyOptions says (by default norms one, biases and sinks zero, matrices normal
/// with config.initializer_range; the same on every grid). collective over grid.world(); errors are
/// agreed.
template <class T>
checkpoint::LoadReport load_parameters(
    const comm::ProcessGrid& grid, ModelSource& model, zero3::ParameterStore<T>& store,
    const checkpoint::LoadOptions& options = {}, Verify verify = Verify::yes,
    const BeforeUnit& before_unit = [] {});

/// Reads the optimizer's state of a Tessera file into the shards. collective; errors are agreed.
template <class T>
checkpoint::LoadReport load_optimizer(
    const comm::ProcessGrid& grid, checkpoint::Hdf5Source& source, zero3::ParameterStore<T>& store,
    const checkpoint::LoadOptions& options = {}, const BeforeUnit& before_unit = [] {});

/// Writes parameters (f32 master weights) and the optimizer's state, with the origins, scales and
/// files of `model`, which it was loaded from, and `fields` beside; returns the bytes of this
/// rank. The file appears under `path` complete or not at all. collective over grid.world(); errors
/// are agreed.
template <class T>
std::int64_t save_checkpoint(const comm::ProcessGrid& grid, const zero3::ParameterStore<T>& store,
                             const std::filesystem::path& path,
                             const checkpoint::TrainingState& state, const ModelSource& model,
                             std::span<const checkpoint::Field> fields = {});

/// How an export after `num_steps` steps of training writes each parameter unless it is told
/// otherwise: as it came, but experts that came as MXFP4 and have been trained as bf16, because to
/// quantise them would lose what training changed. local.
checkpoint::Origins export_origins(const ModelSource& model, std::int64_t num_steps);

/// Writes a Hugging Face directory straight from the shards of all ranks; returns the bytes of this
/// rank. It appears complete or not at all. collective over grid.world(); errors are agreed.
template <class T>
std::int64_t save_hugging_face(const comm::ProcessGrid& grid, const zero3::ParameterStore<T>& store,
                               const std::filesystem::path& directory, const ModelSource& model,
                               std::int64_t num_steps, const checkpoint::ExportOptions& options);

}  // namespace tessera::trainer
