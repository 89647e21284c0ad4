// SPDX-License-Identifier: Apache-2.0
// zero3's traffic between shards and whole units, as far as it takes memory: the requests of
// gathered_units.cpp, gradient_sums.cpp and shared_slots.cpp in their order.
#pragma once

#include <deque>
#include <map>
#include <optional>

#include "symbolic_memory.hpp"

namespace tessera::study {

/// A unit and the group over which it is sharded, seen from one rank.
struct SymbolicUnit {
  std::int64_t flat_size = 0;
  std::int64_t shard_size = 0;
  bool is_expert = false;
  std::int64_t group_size = 1;
  std::int64_t node_size = 1;  ///< ranks of the group on this node that share memory; 1: none do

  std::int64_t num_nodes() const { return group_size / node_size; }
  /// The whole unit lies where all its ranks read it.
  bool lies_on_node() const { return node_size > 1 && node_size == group_size; }
};

class SymbolicStore {
 public:
  using Block = SymbolicMemory::Block;

  SymbolicStore(SymbolicMemory& memory, std::vector<SymbolicUnit> units, std::int64_t element_bytes,
                zero3::GradientTransport transport);

  void gather(std::size_t unit_idx);
  void release(std::size_t unit_idx) { gathered_[unit_idx] = {}; }
  void gradient(std::size_t unit_idx);
  void reduce(std::size_t unit_idx);
  void finish_reductions();

  std::int64_t slot_bytes_of_parameters() const { return parameter_slots_.bytes; }
  std::int64_t slot_bytes_of_gradients() const { return gradient_slots_.bytes; }
  /// Buffers of the reductions in flight, beside the arena.
  std::int64_t message_bytes() const {
    return message_bytes_ * static_cast<std::int64_t>(max_in_flight_);
  }

 private:
  /// As SharedSlots: the smallest that is large enough, but not much too large, or a new one.
  struct Slots {
    struct Slot {
      bool is_expert = false;
      std::int64_t segment_bytes = 0;
      bool in_use = false;
    };
    std::deque<Slot> slots;
    std::int64_t bytes = 0;  ///< of all this rank's groups have on the node

    Block borrow(const SymbolicUnit& unit, std::int64_t segment_bytes);
  };
  struct Sum {
    std::size_t unit_idx = 0;
    Block contribution, travelling, received;
    bool is_partial = false;  ///< summed on the node
  };

  void sum_node(Sum& sum);
  void start_travelling(Sum& sum, std::int64_t num_shards);
  void finish_oldest();

  SymbolicMemory& memory_;
  std::vector<SymbolicUnit> units_;
  std::int64_t element_bytes_;
  zero3::GradientTransport transport_;
  std::vector<Block> gathered_;
  std::vector<Block> contributions_;
  std::deque<Sum> sums_;
  std::size_t max_in_flight_ = 1;
  Slots parameter_slots_, gradient_slots_;
  std::int64_t message_bytes_ = 0;
};

}  // namespace tessera::study
