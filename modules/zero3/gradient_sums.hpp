// SPDX-License-Identifier: Apache-2.0
// The sum of all ranks' gradients of a unit, each shard at its owner. On one node every rank reads
// its neighbours' contributions where they lie; elsewhere they travel.
#pragma once

#include <deque>
#include <list>
#include <optional>
#include <vector>

#include "kernel/gemm.hpp"
#include "node_group.hpp"
#include "tessera/zero3/buffer_pool.hpp"
#include "tessera/zero3/gradient_transport.hpp"
#include "tessera/zero3/unit.hpp"

namespace tessera::zero3 {

class GradientSums {
 public:
  /// groups [units]: null where the ranks share no memory. local.
  GradientSums(const std::deque<Unit>& units, const std::vector<NodeGroup*>& groups,
               GradientTransport transport, BufferPool& pool);

  /// As gradient(), reduce(), finish_reductions() and zero_gradients() of ParameterStore.
  float* contribution(std::size_t unit_idx);
  void start(std::size_t unit_idx);
  void finish_all();
  void zero();

 private:
  /// One contribution of each rank, for one unit at a time. All ranks of a group choose the same
  /// slot, because they choose by what each has done itself, in the same order.
  struct Slot {
    const NodeGroup* group;
    comm::SharedMemory memory;
    std::int64_t last_sum = 0;  ///< number of the group's reduction it was used in
    bool in_use = false;

    float* of(int rank) const { return reinterpret_cast<float*>(memory.segment(rank)); }
  };
  /// This rank's contribution, [flat_size] f32.
  struct Contribution {
    float* data = nullptr;
    Slot* slot = nullptr;   ///< where it lies, or
    BufferPool::Loan loan;  ///< in memory of this rank alone
  };
  struct Sum {
    std::size_t unit_idx = 0;
    Contribution contribution;
    BufferPool::Loan travelling;  ///< [flat_size] bf16 copy, where that is what travels
    BufferPool::Loan received;    ///< [shard_size] of the type that travels
    comm::Request request;
  };

  Contribution borrow(std::size_t unit_idx);
  Slot* borrow_slot(const NodeGroup& group, std::int64_t bytes);
  void start_travelling(Sum& sum);
  void finish_oldest();
  void add_in_place(const Sum& sum, kernel::Into into);
  void add_received(const Sum& sum, kernel::Into into);

  kernel::Execution execution_;
  const std::deque<Unit>& units_;
  std::vector<NodeGroup*> groups_;
  GradientTransport transport_;
  BufferPool& pool_;
  std::vector<std::optional<Contribution>> contributions_;
  std::vector<bool> is_zero_;  ///< the shard counts as zeros, whatever it holds
  std::deque<Sum> sums_;
  std::list<Slot> slots_;
};

}  // namespace tessera::zero3
