// SPDX-License-Identifier: Apache-2.0
// Writes a Hugging Face directory that transformers loads: every rank writes its own byte ranges of
// the same safetensors shards, whose headers follow from the parameters alone. No rank gathers
// anything and no byte is written twice.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "tessera/checkpoint/export_plan.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"

namespace tessera::checkpoint {

/// Throws what HuggingFaceWriter would throw of the place: it is taken, or its parent is missing.
/// For jobs that export after long work. collective over world; errors are agreed.
void require_export_target(const comm::Communicator& world, const std::filesystem::path& directory,
                           const ExportOptions& options);

class HuggingFaceWriter {
 public:
  /// Plans shards and headers, checks free space, creates `directory`.partial with all files at
  /// their full size, the index and the small `files` (config.json among them, as it is to be; rank
  /// 0's count). `parameters`: all of the model, in order, in transformers' naming. collective over
  /// world; errors are agreed. Throws Error::usage if the directory exists and is not empty (unless
  /// overwrite, and even then if it holds what no export writes).
  HuggingFaceWriter(const comm::Communicator& world, std::filesystem::path directory,
                    std::span<const Parameter> parameters, const Origins& origins,
                    const EmbeddedFiles& files, const ExportOptions& options);
  /// Without commit(), rank 0 removes what was begun. local.
  ~HuggingFaceWriter();

  /// Writes this rank's slices of some parameters: narrowed, quantised (with `scales` where they
  /// fit) or turned to the checkpoint's orientation through a buffer of 16 MiB. The ranks' slices
  /// are disjoint and together whole; slices of MXFP4 begin and end on blocks. local: an error (a
  /// value that its element type cannot hold among them) is kept until commit().
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
