// SPDX-License-Identifier: Apache-2.0
// Which tensors of which safetensors files an export writes and where each parameter's elements go.
// It follows from the parameters alone, so that every rank has the same plan.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

enum class ExpertFormat {
  as_imported,  ///< MXFP4 or each tensor's own element type, as its origin says
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

/// One tensor of the export.
struct ExportTensor {
  std::string name;
  Dtype dtype = Dtype::bf16;
  Shape shape;
  std::size_t file = 0;           ///< index in ExportPlan::files
  std::int64_t offset_bytes = 0;  ///< of its first element, from the start of the file
  std::int64_t bytes() const { return num_elements(shape) * std::int64_t(size_of(dtype)); }
};

/// Elements [begin, begin + size) of a parameter lie in a tensor from its element tensor_begin on.
struct ExportPart {
  std::int64_t begin = 0;
  std::int64_t size = 0;
  std::int64_t tensor_begin = 0;
  std::size_t tensor = 0;  ///< index in ExportPlan::tensors
};

struct ExportParameter {
  Shape shape;  ///< Tessera's
  bool transposed = false;
  bool mxfp4 = false;  ///< its one part names the blocks; the scales are the next tensor
  std::vector<ExportPart> parts;
};

struct ExportFile {
  std::string name;
  std::string header;  ///< the file's first bytes; the tensors follow without holes
  std::int64_t bytes = 0;
};

struct ExportPlan {
  std::vector<ExportTensor> tensors;  ///< in the order of the parameters
  std::vector<ExportFile> files;
  std::map<std::string, ExportParameter> parameters;  ///< by name
  std::int64_t num_parameters = 0;                    ///< trained elements

  std::int64_t total_bytes() const;  ///< of the tensors
  /// Text of model.safetensors.index.json; empty where there is one file, which needs none.
  std::string index_json() const;
};

/// Splits as transformers does: tensors in order, a new file before the one that would pass the
/// limit, a tensor above the limit alone. Throws Error::usage where MXFP4 is asked for and not
/// possible, naming the tensor. local.
ExportPlan plan_export(std::span<const Parameter> parameters, const Origins& origins,
                       const ExportOptions& options);

/// Whether any parameter is written as MXFP4, which config.json has to say. local.
bool exports_mxfp4(std::span<const Parameter> parameters, const Origins& origins,
                   const ExportOptions& options);

}  // namespace tessera::checkpoint
