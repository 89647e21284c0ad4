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

/// One logical parameter: a global tensor that no rank need ever hold whole.
struct Parameter {
  std::string
      name;     ///< name in the Hugging Face checkpoint, e.g. model.layers.0.mlp.experts.down_proj
  Shape shape;  ///< as Tessera stores it; an expert parameter has the expert index first
  bool is_expert = false;    ///< sharded over the ranks with the same experts; else over all ranks
  bool transposed = false;   ///< [E, out, in] here, [E, in, out] in the Hugging Face checkpoint
  bool weight_decay = true;  ///< false for norms, biases and sinks

  std::int64_t size() const { return num_elements(shape); }
  /// Shape as the Hugging Face checkpoint has it.
  Shape checkpoint_shape() const {
    return transposed ? Shape{shape[0], shape[2], shape[1]} : shape;
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
