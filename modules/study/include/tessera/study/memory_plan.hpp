// SPDX-License-Identifier: Apache-2.0
// How much memory a training run will need, from the configuration alone. What a step takes comes
// from a symbolic run of it: the same requests in the same order as the model makes them, placed by
// the same code as the arena places them (kernel/block_map.hpp), without memory and arithmetic. A
// list of formulas would have to know which requests live at once and how they fit together; here
// that is a result. tests/study compares it with what steps really took.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "tessera/study/run_shape.hpp"

namespace tessera::study {

enum class MemoryKind {
  parameters,           ///< f32 master weights, for good
  gradients,            ///< f32 gradient shards, for good
  optimizer,            ///< its state, for good
  working_parameters,   ///< whole in the type of the arithmetic, for good: of a group of one
  gathered_parameters,  ///< whole units in use
  gathered_gradients,   ///< of whole units, and on their way to their owners
  activations,          ///< what backward needs of forward, and the residual stream
  temporaries,          ///< of one operation or block
  dispatch,             ///< rows on their way to experts and back
  kept,                 ///< by the arena, beyond what lives at once
  messages,             ///< buffers of reductions that travel
  products,             ///< what oneDNN keeps for f32 products
};
inline constexpr std::size_t num_memory_kinds = 12;
std::string_view to_string(MemoryKind kind);

/// Memory that the ranks of a node share [bytes of the node].
struct NodeMemory {
  std::int64_t parameters = 0;
  std::int64_t gradients = 0;
  std::int64_t dispatch = 0;
  std::int64_t sum() const { return parameters + gradients + dispatch; }
};

/// At the moment of a step in which the arena reaches farthest.
struct MemoryPlan {
  std::int64_t num_ranks = 0;  ///< that are alike
  std::int64_t first_rank = 0;
  std::int64_t num_parameters = 0;  ///< that each owns, with padding
  std::array<std::int64_t, num_memory_kinds> bytes{};
  NodeMemory node;                  ///< of its node
  std::int64_t ranks_per_node = 1;  ///< over which the node's memory is divided

  std::int64_t of(MemoryKind kind) const { return bytes[static_cast<std::size_t>(kind)]; }
  std::int64_t private_bytes() const;
  /// The rank's own and its share of the node's: its proportional set size, less the program.
  std::int64_t rank_bytes() const { return private_bytes() + node.sum() / ranks_per_node; }
};

/// What a rank takes before anything of a model is there: the program, its libraries, MPI. An
/// estimate: it differs with the installation, and `train` says at its end what it was.
inline constexpr std::int64_t program_bytes = std::int64_t{64} << 20;

/// Of each group of ranks that are alike: they hold equally many experts and sequences. At most
/// four, whatever the number of ranks. Throws Error::usage. local.
std::vector<MemoryPlan> plan_memory(const model::ModelConfig& config, const RunShape& shape);

/// The one that needs most. local.
const MemoryPlan& largest(const std::vector<MemoryPlan>& plans);

}  // namespace tessera::study
