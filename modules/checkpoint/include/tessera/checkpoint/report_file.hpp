// SPDX-License-Identifier: Apache-2.0
// An HDF5 file of results (losses, logits, gradients) written by all ranks, in the names, shapes
// and orientation of the Hugging Face checkpoint: what `tessera probe` writes and PyTorch is
// compared with.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/parameter.hpp"
#include "comm/communicator.hpp"

namespace tessera::checkpoint {

class ReportFile {
 public:
  /// Begins a file that appears under `path` with commit(). collective over world; errors are
  /// agreed.
  ReportFile(const comm::Communicator& world, std::filesystem::path path);
  /// Removes a file without commit(). collective over world (MPI-IO's close is).
  ~ReportFile();

  /// A f64 dataset /<name>: a scalar, or [n]; the same values on all ranks. collective.
  void write_scalar(const std::string& name, double value);
  void write_values(const std::string& name, std::span<const double> values);
  /// A f32 dataset /<name> of `shape`; this rank has `values` from flat element `begin` on. Ranks'
  /// parts are disjoint and together the whole. collective.
  void write_part(const std::string& name, const Shape& shape, std::int64_t begin,
                  std::span<const float> values);
  /// f32 datasets /<group>/<parameter.name> from the ranks' slices of one unit, transposed to the
  /// checkpoint's orientation where Tessera's differs. collective: all ranks pass the same
  /// parameters.
  void write_parameters(const std::string& group, std::span<const Parameter> parameters,
                        std::span<const Slice> slices, std::span<const float> shard);
  /// Closes the file and gives it its name. collective; errors are agreed.
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::checkpoint
