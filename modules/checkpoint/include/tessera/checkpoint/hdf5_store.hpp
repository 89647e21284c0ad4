// SPDX-License-Identifier: Apache-2.0
// Tessera's own checkpoint file: parallel HDF5 with one global dataset per parameter and per
// optimizer state, whatever the grid. The contract is modules/checkpoint/FORMAT.md.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tessera/checkpoint/fields.hpp"
#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

/// Where a training run stands; empty (step 0, no optimizer) in an imported model.
struct TrainingState {
  std::int64_t step = 0;             ///< optimizer steps done
  std::int64_t optimizer_steps = 0;  ///< Adam's bias-correction count (dropped steps excluded)
  std::int64_t data_position = 0;    ///< sequences consumed
  std::uint64_t seed = 0;            ///< of sampling
  std::string optimizer;             ///< "adamw", "sgd" or "" for weights alone
  std::string training_json;  ///< the run's own record (schedule, lengths), verbatim; may be empty
};

/// Groups of a Tessera file (FORMAT.md): the model, and the state of AdamW.
inline constexpr const char* parameters_group = "parameters";
inline constexpr const char* exp_avg_group = "optimizer/exp_avg";
inline constexpr const char* exp_avg_sq_group = "optimizer/exp_avg_sq";

/// One dataset to be: /<group>/<parameter.name>, in the parameter's natural shape.
struct DatasetSpec {
  std::string group;  ///< "parameters", "optimizer/exp_avg", "optimizer/exp_avg_sq"
  const Parameter* parameter = nullptr;
  Dtype dtype = Dtype::f32;  ///< f32, bf16 or f16; f64 is stored as f32, which the shards have
  Origin origin = {};        ///< of a dataset in "parameters"; kept as attributes. With mxfp4 the
                             ///< file gets /mxfp4_scales/<parameter.name> too, u8 [E, out, in / 32]
};

/// One dataset as a file has it.
struct StoredDataset {
  std::string group;  ///< "parameters", "optimizer/exp_avg", ..., "mxfp4_scales", "files"
  TensorInfo info;
  bool is_transposed = false;  ///< last two dimensions exchanged against the Hugging Face file
  bool is_expert = false;      ///< the first dimension counts experts
  Origin origin = {};          ///< of one in "parameters"
  TensorFingerprint fingerprint = {};  ///< empty in a file of format version 1

  std::string path() const { return fmt::format("/{}/{}", group, info.name); }
};

/// Small files kept verbatim: name -> content (config.json, tokenizer.json, ...).
using EmbeddedFiles = std::map<std::string, std::string>;

/// Writes a checkpoint under a temporary name and renames it when all of it is on disk. An
/// unfinished writer leaves the previous checkpoint untouched and removes its temporary file; what
/// a killed job left is removed by the next save.
class Hdf5Writer {
 public:
  /// Checks free space, creates the file and all datasets (allocated, not filled).
  /// collective over world; errors are agreed.
  Hdf5Writer(const comm::Communicator& world, std::filesystem::path path,
             std::span<const DatasetSpec> datasets, const TrainingState& state,
             const EmbeddedFiles& files, TransferMode transfer = TransferMode::automatic);
  /// collective over world (MPI-IO's close is): after commit() or when all ranks unwind alike.
  ~Hdf5Writer();

  /// Writes this rank's slices of one unit, narrowed from f32 to each dataset's dtype.
  /// `parameters`: all of the unit, the same on all ranks; `slices`: this rank's. collective over
  /// world; errors are agreed.
  void write(const std::string& group, std::span<const Parameter> parameters,
             std::span<const Slice> slices, std::span<const float> shard);
  /// Writes the scales of those of the parameters whose origin is MXFP4. collective over world;
  /// errors are agreed.
  void write_scales(std::span<const Parameter> parameters, std::span<const Slice> slices,
                    const ScaleShards& scales);
  /// Writes arrays that are not the model's beside it. As require_fields(). collective over world;
  /// errors are agreed.
  void write_fields(std::span<const Field> fields);
  /// Sums the fingerprints of what was written over the ranks and stores them, fsyncs,
  /// renames, fsyncs the directory. `expected`: what the parameters must be, summed over the ranks;
  /// Error::internal, before anything is renamed, names the first one that was written otherwise.
  /// collective over world; errors are agreed.
  void commit(const FingerprintTable* expected = nullptr);
  /// Fingerprints of /parameters as written, summed over the ranks; after commit().
  const FingerprintTable& fingerprints() const;

  std::int64_t written_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// What a Tessera file says of itself.
struct FileSummary {
  std::int64_t format_version = 0;
  std::int64_t file_bytes = 0;
  TrainingState state;
  std::int64_t num_parameters = 0;  ///< elements of /parameters
};
/// Reads metadata alone. Throws Error::file or Error::format, naming the file and what is wrong
/// with it. local.
FileSummary summarize_file(const std::filesystem::path& path);

/// A Tessera file as a Source, with what only it has.
class Hdf5Source : public Source {
 public:
  /// collective over world; errors are agreed. Refuses files of a newer format version.
  static std::unique_ptr<Hdf5Source> open(const comm::Communicator& world,
                                          const std::filesystem::path& path,
                                          TransferMode transfer = TransferMode::automatic);
  /// collective over the world it was opened on, unless transfers are direct (MPI-IO's close is).
  ~Hdf5Source() override;

  const TrainingState& state() const { return state_; }
  const EmbeddedFiles& files() const { return files_; }
  /// All datasets, sorted by group and name.
  const std::vector<StoredDataset>& datasets() const { return datasets_; }
  std::vector<StoredPart> parts(const Parameter& parameter) const override;
  bool has(const Parameter& parameter) const override;
  Origin origin(const Parameter& parameter) const override;
  std::int64_t stored_bytes(const Parameter& parameter) const override;
  /// Stored fingerprint of /<group>/<name> ("parameters", "optimizer/exp_avg", "mxfp4_scales",
  /// "files"), or null in a file of format version 1. local.
  const TensorFingerprint* fingerprint(const std::string& group, const std::string& name) const;
  const TensorFingerprint* stated_fingerprint(const Parameter& parameter) const override {
    return fingerprint("parameters", parameter.name);
  }
  const char* kind() const override { return "Tessera file"; }
  LoadReport load(const comm::ProcessGrid& grid, std::span<const Parameter> parameters,
                  std::span<const Slice> slices, std::span<float> shard,
                  const LoadOptions& options) override;
  /// The same for optimizer states: group as in DatasetSpec. Throws Error::keys (agreed) if absent.
  LoadReport load_group(const comm::ProcessGrid& grid, const std::string& group,
                        std::span<const Parameter> parameters, std::span<const Slice> slices,
                        std::span<float> shard, const LoadOptions& options);
  /// The same for datasets of bytes ("mxfp4_scales", "files"), whose shapes `parameters` have.
  LoadReport load_bytes(const comm::ProcessGrid& grid, const std::string& group,
                        std::span<const Parameter> parameters, std::span<const Slice> slices,
                        std::span<std::uint8_t> shard, const LoadOptions& options);

 private:
  Hdf5Source() = default;
  std::vector<const TensorInfo*> require_tensors(const std::string& group,
                                                 std::span<const Parameter> parameters,
                                                 bool wants_bytes) const;
  LoadReport load_scales(const comm::ProcessGrid& grid, std::span<const Parameter> parameters,
                         std::span<const Slice> slices, const LoadOptions& options);
  template <class Element>
  LoadReport transfer(const comm::Communicator& world, const std::string& group,
                      std::span<const Parameter> parameters,
                      std::span<const TensorInfo* const> tensors, std::span<const Slice> slices,
                      std::span<Element> shard, const LoadOptions& options);

  struct ParallelFile;
  std::unique_ptr<ParallelFile> file_;   ///< null where transfers are direct
  std::vector<StoredDataset> datasets_;  ///< sorted by group and name
  TrainingState state_;
  EmbeddedFiles files_;
};

}  // namespace tessera::checkpoint
