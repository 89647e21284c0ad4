// SPDX-License-Identifier: Apache-2.0
// The sum of all ranks' gradients of a unit, each shard at its owner. On one node every rank reads
// its neighbours' contributions where they lie. Over several nodes a rank first sums what its node
// has for the shards of its peers, and what travels is one sum per node: the order is ranks within
// a node, then nodes. Without shared memory all contributions travel, and are summed in rank order.
#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <vector>

#include "kernel/gemm.hpp"
#include "shared_slots.hpp"
#include "tessera/zero3/buffer_pool.hpp"
#include "tessera/zero3/gradient_transport.hpp"
#include "tessera/zero3/unit.hpp"

namespace tessera::zero3 {

class GradientSums {
 public:
  /// groups [units]: null where the ranks share no memory. local.
  GradientSums(const std::deque<Unit>& units, const std::vector<const NodeGroup*>& groups,
               GradientTransport transport, BufferPool& pool);

  /// As gradient(), overwritable_gradient(), progress(), reduce(), finish_reductions() and
  /// zero_gradients() of ParameterStore.
  float* contribution(std::size_t unit_idx);
  float* overwritable(std::size_t unit_idx);
  void progress();
  void start(std::size_t unit_idx);
  void finish_all();
  void zero();

 private:
  /// This rank's contribution, [flat_size] f32.
  struct Contribution {
    float* data = nullptr;
    SharedSlot* slot = nullptr;  ///< where it lies, or
    BufferPool::Loan loan;       ///< in memory of this rank alone
  };
  struct Sum {
    std::size_t unit_idx = 0;
    Contribution contribution;
    BufferPool::Loan travelling;  ///< [flat_size] bf16 copy, where that is what travels
    BufferPool::Loan received;    ///< [shard_size] of the type that travels
    comm::Request request;
    std::chrono::steady_clock::time_point begin;
    double waited_s = 0.0;
    bool shares_memory = false;  ///< on the node at least
  };

  void zero_padding(const Unit& unit, float* whole) const;
  Contribution borrow(std::size_t unit_idx);
  bool stays_on_node(const Sum& sum) const;
  void wait_for_neighbours(Sum& sum);
  void sum_node(Sum& sum);
  void start_travelling(Sum& sum, const comm::Communicator& group);
  void finish_oldest();
  void count(const Sum& sum) const;
  void add_neighbours(const Sum& sum, std::int64_t shard_idx, kernel::Into into,
                      kernel::Vector<float> result);
  void add_received(const Sum& sum, kernel::Into into);

  kernel::Execution execution_;
  const std::deque<Unit>& units_;
  std::vector<const NodeGroup*> groups_;
  GradientTransport transport_;
  BufferPool& pool_;
  std::vector<std::optional<Contribution>> contributions_;
  std::vector<bool> is_zero_;  ///< the shard counts as zeros, whatever it holds
  std::deque<Sum> sums_;
  SharedSlots slots_;
  std::size_t max_in_flight_ = 1;  ///< sums, while the next gradient is being computed
};

}  // namespace tessera::zero3
