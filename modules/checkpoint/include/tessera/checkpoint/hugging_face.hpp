// SPDX-License-Identifier: Apache-2.0
// A Hugging Face directory (config.json, one or more safetensors files with their index) as a
// Source.
#pragma once

#include "tessera/checkpoint/hdf5_store.hpp"
#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

class HuggingFaceSource : public Source {
 public:
  /// Headers are parsed on rank 0, checked against the file sizes and broadcast. collective over
  /// world; errors are agreed.
  static std::unique_ptr<HuggingFaceSource> open(const comm::Communicator& world,
                                                 const std::filesystem::path& directory);

  /// config.json, generation_config.json, tokenizer and chat-template files, where present.
  const EmbeddedFiles& files() const { return files_; }
  std::vector<StoredPart> parts(const Parameter& parameter) const override {
    return parameter.stored_parts();
  }
  bool has(const Parameter& parameter) const override;
  Origin origin(const Parameter& parameter) const override;
  std::int64_t stored_bytes(const Parameter& parameter) const override;
  const char* kind() const override { return "Hugging Face directory"; }
  /// As Source::load. Each byte of the file is read once by the job: by its owner, or, for tensors
  /// that the file holds as [E, in, out], by a rank of the replica group that passes it on; only a
  /// row of FP8 scales at the border of two slices is read by both owners. MXFP4 and FP8 become
  /// floats on the rank that owns them. Memory beyond the shard: at most LoadOptions::buffer_bytes
  /// (some blocks of elements for each rank of the group must fit). Throws Error::numeric for an
  /// MXFP4 scale that bf16 cannot hold.
  LoadReport load(const comm::ProcessGrid& grid, std::span<const Parameter> parameters,
                  std::span<const Slice> slices, std::span<float> shard,
                  const LoadOptions& options) override;

 private:
  HuggingFaceSource() = default;
  EmbeddedFiles files_;
};

}  // namespace tessera::checkpoint
