// SPDX-License-Identifier: Apache-2.0
// A checkpoint to read from: a Hugging Face directory or a Tessera HDF5 file, behind one interface.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "base/parameter.hpp"
#include "comm/process_grid.hpp"
#include "tessera/checkpoint/fingerprint.hpp"
#include "tessera/checkpoint/mxfp4.hpp"

namespace tessera::checkpoint {

using tessera::to_string;  // of shapes and types, beside that of fingerprints

/// One tensor as the checkpoint has it.
struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::f32;
  Shape shape;                    ///< as stored in this file
  std::string file;               ///< file that holds it, relative to the checkpoint
  std::int64_t offset_bytes = 0;  ///< of its first element, from the start of that file
  std::int64_t bytes() const { return num_elements(shape) * std::int64_t(size_of(dtype)); }
};

/// How the elements of a Tessera file travel: by parallel HDF5, all ranks together in each transfer
/// or each on its own, or directly, each rank reading and writing its bytes where HDF5 has placed
/// the dataset. The file is the same. automatic: the environment variable TESSERA_HDF5_TRANSFER
/// (collective, independent, direct); without it direct where all ranks share a node, which copies
/// nothing, and collective where they do not.
enum class TransferMode { automatic, collective, independent, direct };

struct LoadOptions {
  std::int64_t buffer_bytes = 16 << 20;  ///< bound of the staging memory of one rank [bytes]
  bool plan_only = false;                ///< read nothing; the report tells what would be read
  /// If not null: receives the scales of every MXFP4 parameter read, for this rank's slices.
  ScaleShards* scales = nullptr;
  /// If not null: receives the sums of what was read from the files, hashed by the rank that read
  /// it, before it was exchanged or placed. Summed over the ranks it is the file's fingerprint.
  FingerprintTable* fingerprints = nullptr;
  /// If not null: receives the sums of what its owner puts into the shard, hashed on the way.
  FingerprintTable* placed = nullptr;
};

/// What a parameter was in the Hugging Face checkpoint that it once came from, so that export can
/// write it again. FP8 counts as bf16.
struct Origin {
  std::vector<Dtype> dtypes = {Dtype::bf16};  ///< one for all stored parts, or one for each
  bool mxfp4 = false;                         ///< its experts were blocks and scales
};

/// What a load moved on this rank.
struct LoadReport {
  std::int64_t planned_bytes = 0;  ///< by the read plan, before reading
  std::int64_t read_bytes = 0;     ///< read from files
  std::int64_t exchanged_bytes =
      0;  ///< received from ranks of the replica group (transposed tensors)
  std::int64_t peak_buffer_bytes =
      0;  ///< staging memory in use at most, <= LoadOptions::buffer_bytes
  LoadReport& operator+=(const LoadReport& other);
};

class Source {
 public:
  /// Opens a directory (config.json and safetensors) or a Tessera file; reads headers only, once
  /// per job, and gives all ranks the same view. collective over world; errors are agreed.
  static std::unique_ptr<Source> open(const comm::Communicator& world,
                                      const std::filesystem::path& path);
  virtual ~Source() = default;

  const std::filesystem::path& path() const { return path_; }
  const std::string& config_json() const { return config_json_; }      ///< verbatim
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  ///< sorted by name
  /// The tensor of that name or null. local.
  const TensorInfo* find(const std::string& name) const;
  /// How this kind of checkpoint holds `parameter`: one dataset, or one or several tensors. local.
  virtual std::vector<StoredPart> parts(const Parameter& parameter) const = 0;
  /// Whether all of its parts are there, in whatever encoding. local.
  virtual bool has(const Parameter& parameter) const = 0;
  /// For parameters that it has. local.
  virtual Origin origin(const Parameter& parameter) const = 0;
  /// Bytes of the file that hold it, scales included. local.
  virtual std::int64_t stored_bytes(const Parameter& parameter) const = 0;
  /// The fingerprint that it states for `parameter`, or null. local.
  virtual const TensorFingerprint* stated_fingerprint(const Parameter&) const { return nullptr; }
  /// "Hugging Face directory" or "Tessera file", for messages.
  virtual const char* kind() const = 0;

  /// Reads `slices` (this rank's, of one unit; the ranks' slices are disjoint) widened to f32 into
  /// shard[slice.shard_offset ...]. Host memory. collective over grid.world(): all ranks pass
  /// slices of the same parameters in the same order or none of them; errors are agreed.
  virtual LoadReport load(const comm::ProcessGrid& grid, std::span<const Parameter> parameters,
                          std::span<const Slice> slices, std::span<float> shard,
                          const LoadOptions& options) = 0;

 protected:
  std::filesystem::path path_;
  std::string config_json_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace tessera::checkpoint
