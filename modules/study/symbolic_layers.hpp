// SPDX-License-Identifier: Apache-2.0
// What the blocks of a layer ask the pool for, in their order. Each function stands for the one of
// the same name in modules/model and modules/moe; requests of a few KiB are left out.
#pragma once

#include "kernel/attention.hpp"
#include "symbolic_memory.hpp"

namespace tessera::study {

/// What the sizes of a rank's requests depend on.
struct LayerSizes {
  std::int64_t num_tokens = 0;
  std::int64_t element_bytes = 4;  ///< of the arithmetic
  std::int64_t length = 0;         ///< of a sequence
  std::int64_t axis_size = 1;      ///< ranks that exchange rows
  bool axis_shares_memory = false;
  std::int64_t num_sent = 0;      ///< rows that the rank's tokens send to experts
  std::int64_t num_received = 0;  ///< rows of the rank's experts
  std::int64_t most_rows = 0;     ///< that are computed at a time: of the busiest of these
};

class SymbolicAttention {
 public:
  using Blocks = SymbolicMemory::Blocks;

  SymbolicAttention(SymbolicMemory& memory, const model::ModelConfig& config,
                    const LayerSizes& sizes, std::int64_t layer);

  /// Fills `saved` with all but the layer's input.
  void attend(Blocks& saved) const;
  /// Returns the residual stream.
  SymbolicMemory::Block forward(Blocks& saved) const;
  void backward() const;

 private:
  SymbolicMemory::Block take(MemoryKind kind, std::int64_t width, std::int64_t bytes) const {
    return memory_.take(kind, sizes_.num_tokens * width * bytes);
  }
  void grouped_forward(Blocks& saved, std::int64_t width, bool has_norm) const;
  void latent_forward(Blocks& saved) const;
  void scratch_forward() const;
  void grouped_backward(std::int64_t width, bool has_norm) const;
  void latent_backward() const;
  void scratch_backward() const;

  SymbolicMemory& memory_;
  const model::ModelConfig& config_;
  const LayerSizes& sizes_;
  kernel::AttentionShape shape_;
};

/// A dense MLP of that width, or the shared experts.
struct SymbolicMlp {
  SymbolicMemory& memory;
  std::int64_t num_tokens, intermediate_size, element_bytes;

  void forward(SymbolicMemory::Blocks& saved) const;
  void backward() const;
};

/// A layer's second half.
class SymbolicSecondHalf {
 public:
  using Block = SymbolicMemory::Block;
  using Blocks = SymbolicMemory::Blocks;

  SymbolicSecondHalf(SymbolicMemory& memory, const model::ModelConfig& config,
                     const LayerSizes& sizes, std::int64_t layer)
      : memory_(memory),
        config_(config),
        sizes_(sizes),
        has_experts_(config.layer_has_experts[static_cast<std::size_t>(layer)]) {}

  /// Returns the layer's output.
  Block forward(Blocks& saved) const;
  void backward() const;

  /// The node's areas through which this rank passes rows [bytes], where the axis shares memory.
  static std::int64_t area_bytes(const model::ModelConfig& config, const LayerSizes& sizes);

 private:
  Block take(MemoryKind kind, std::int64_t rows, std::int64_t width, std::int64_t bytes) const {
    return memory_.take(kind, rows * width * bytes);
  }
  Block dense_forward(Blocks& saved) const;
  void dense_backward() const;
  Block moe_forward(Blocks& saved) const;
  void moe_backward() const;
  void route(Blocks& saved) const;
  Block dispatch_forward() const;
  Block dense_part_backward() const;
  SymbolicMlp shared_experts() const {
    return {memory_, sizes_.num_tokens, config_.shared_intermediate_size, sizes_.element_bytes};
  }
  /// Rows travel in buffers of the rank.
  bool travels() const { return sizes_.axis_size > 1 && !sizes_.axis_shares_memory; }

  SymbolicMemory& memory_;
  const model::ModelConfig& config_;
  const LayerSizes& sizes_;
  bool has_experts_;
};

}  // namespace tessera::study
