// SPDX-License-Identifier: Apache-2.0
// Writes a Hugging Face directory that transformers loads: every rank writes its own byte ranges of
// the same safetensors shards, whose headers follow from the parameters alone. No rank gathers
// anything and no byte is written twice.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::checkpoint {

enum class ExpertFormat {
  as_imported,  ///< MXFP4 if the model came as MXFP4, else each tensor's own element type
  bf16,         ///< all expert weights as plain bf16
  mxfp4,        ///< all expert matrices that the family has as MXFP4
};

struct ExportOptions {
  ExpertFormat experts = ExpertFormat::as_imported;
  std::int64_t max_shard_bytes =
      5'000'000'000;       ///< of one safetensors file, as transformers splits
  bool overwrite = false;  ///< replace an existing directory
};

/// Origins by parameter name; absent: bf16.
using Origins = std::map<std::string, Origin>;

class HuggingFaceWriter {
 public:
  /// Plans shards and headers, checks free space, creates `directory`.partial with all files at
  /// their full size, the index and the small `files` (config.json among them, as it is to be).
  /// `parameters`: all of the model, in order. collective over world; errors are agreed. Throws
  /// Error::usage if the directory exists (unless overwrite).
  HuggingFaceWriter(const comm::Communicator& world, std::filesystem::path directory,
                    std::span<const Parameter> parameters, const Origins& origins,
                    const EmbeddedFiles& files, const ExportOptions& options);
  /// Without commit(), rank 0 removes what was begun. local.
  ~HuggingFaceWriter();

  /// Writes this rank's slices of some parameters: narrowed, quantised (with `scales` where they
  /// fit) or turned to the checkpoint's orientation through a buffer of 16 MiB. The ranks' slices
  /// are disjoint and together whole. local: an error is kept until commit().
  void write(std::span<const Slice> slices, std::span<const float> shard,
             const ScaleShards& scales);
  /// Agrees that every byte was written, fsyncs, renames the directory. collective over world;
  /// errors are agreed.
  void commit();

  std::int64_t written_bytes() const;  ///< by this rank

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::checkpoint
