// SPDX-License-Identifier: Apache-2.0
// What one model parameter is, apart from who holds it: the vocabulary that checkpoint (which
// bytes), zero3 (which shard) and model (which mathematics) share.
#pragma once

#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

namespace tessera {

/// Shape of a tensor, slowest dimension first (row-major).
using Shape = std::vector<std::int64_t>;

inline std::int64_t num_elements(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

/// `"[8, 2880, 5760]"`
std::string to_string(const Shape& shape);

/// A run of a parameter's elements that one tensor of a Hugging Face checkpoint holds, in the same
/// order: all of it, one expert's half of a fused matrix, or the rows that are the parameter's own.
struct StoredPart {
  std::string tensor;             ///< its name in the checkpoint
  Shape shape;                    ///< of that whole tensor in the checkpoint
  std::int64_t begin = 0;         ///< first element of the parameter that it holds
  std::int64_t size = 0;          ///< how many of them
  std::int64_t tensor_begin = 0;  ///< where the first of them lies in the tensor
};

/// One logical parameter: a global tensor that no rank need ever hold whole.
struct Parameter {
  std::string name;  ///< transformers' name in memory, e.g. model.layers.0.mlp.experts.down_proj
  Shape shape;       ///< as Tessera stores it; an expert parameter has the expert index first
  bool is_expert = false;     ///< sharded over the ranks with the same experts; else over all ranks
  bool transposed = false;    ///< [E, out, in] here, [E, in, out] in the Hugging Face checkpoint
  bool weight_decay = true;   ///< false for norms, biases and sinks
  bool trainable = true;      ///< false for buffers: no gradient, no optimizer state, read in f32
  bool may_be_mxfp4 = false;  ///< the checkpoint may hold it as `_blocks` and `_scales` instead
  /// Where a Hugging Face checkpoint has it, ascending and together all of it; empty: one tensor of
  /// this name in checkpoint_shape().
  std::vector<StoredPart> stored = {};

  std::int64_t size() const { return num_elements(shape); }
  /// Shape as the Hugging Face checkpoint has it, where that is one tensor.
  Shape checkpoint_shape() const {
    return transposed ? Shape{shape[0], shape[2], shape[1]} : shape;
  }
  /// `stored`, or the one part that its absence stands for.
  std::vector<StoredPart> stored_parts() const {
    if (!stored.empty()) return stored;
    return {StoredPart{name, checkpoint_shape(), 0, size(), 0}};
  }
};

/// A contiguous range of a parameter's elements, counted row-major over the *global* tensor in
/// Tessera's orientation, and where it lies in a rank's flat shard. Local experts are consecutive
/// and shards are contiguous, so a rank owns at most one Slice of each parameter.
struct Slice {
  const Parameter* parameter = nullptr;
  std::int64_t begin = 0;         ///< first element in the global tensor
  std::int64_t end = 0;           ///< one past the last
  std::int64_t shard_offset = 0;  ///< where element `begin` lies in the shard [elements]

  std::int64_t size() const { return end - begin; }
};

}  // namespace tessera
