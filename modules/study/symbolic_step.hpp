// SPDX-License-Identifier: Apache-2.0
// A training step as far as it takes memory: modules/model/transformer.cpp without its arithmetic.
#pragma once

#include "symbolic_layers.hpp"
#include "symbolic_store.hpp"
#include "tessera/model/parameter_units.hpp"

namespace tessera::study {

class SymbolicStep {
 public:
  SymbolicStep(SymbolicMemory& memory, SymbolicStore& store, const model::ModelConfig& config,
               const LayerSizes& sizes, model::Recompute recompute)
      : memory_(memory),
        store_(store),
        config_(config),
        sizes_(sizes),
        units_(config),
        recompute_(recompute) {}

  /// One micro-step with its gradient.
  void pass();

 private:
  using Block = SymbolicMemory::Block;
  using Blocks = SymbolicMemory::Blocks;
  struct Saved {
    Block x;
    Blocks attention, second_half;
  };

  Block embed();
  Block forward_layers(Block x, std::vector<Saved>& saved);
  void head();
  void head_in_chunks();
  void backward_layers(std::vector<Saved>& saved);
  void embed_backward();
  std::size_t first_of_head() const;
  void prefetch_layer(std::int64_t layer);
  bool has_experts(std::int64_t layer) const {
    return config_.layer_has_experts[static_cast<std::size_t>(layer)];
  }
  Block rows(MemoryKind kind, std::int64_t bytes) const {
    return memory_.take(kind, sizes_.num_tokens * config_.hidden_size * bytes);
  }

  SymbolicMemory& memory_;
  SymbolicStore& store_;
  const model::ModelConfig& config_;
  const LayerSizes& sizes_;
  model::UnitIndex units_;
  model::Recompute recompute_;
};

}  // namespace tessera::study
