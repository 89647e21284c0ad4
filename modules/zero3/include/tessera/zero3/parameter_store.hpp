// SPDX-License-Identifier: Apache-2.0
// All units of a model on this rank, and the traffic between shards and whole units: gather just in
// time with the next one already on its way, release, reduce-scatter. The only code that touches
// shards during a step.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "tessera/zero3/buffer_pool.hpp"
#include "tessera/zero3/unit.hpp"

namespace tessera::zero3 {

/// In which type gradients travel in the reduce-scatter; sums over tokens and micro-steps stay f32.
enum class GradientTransport { f32, bf16 };

/// T, in {float, bf16}: the type in which parameters are gathered and used.
template <class T>
class ParameterStore {
 public:
  /// collective over grid.world().
  ParameterStore(std::vector<UnitSpec> specs, GradientTransport transport = GradientTransport::f32);

  std::size_t num_units() const { return units_.size(); }
  Unit& unit(std::size_t unit_idx) { return units_[unit_idx]; }
  const Unit& unit(std::size_t unit_idx) const { return units_[unit_idx]; }
  const BufferPool& pool() const { return pool_; }

  /// Starts the all-gather of a unit unless it is gathered or on its way. collective over its
  /// group.
  void prefetch(std::size_t unit_idx);
  /// The whole unit [flat_size], valid until release(); completes a prefetch or gathers now.
  /// collective over its group.
  const T* gather(std::size_t unit_idx);
  /// Gives the gathered copy back. local.
  void release(std::size_t unit_idx);

  /// Zeroed f32 buffer [flat_size] for this rank's contribution to the unit's gradient; the same
  /// one until reduce(). local.
  float* gradient(std::size_t unit_idx);
  /// Starts the sum of all contributions over the group; the unit's gradient shard receives it
  /// (added) in finish_reductions() at the latest. collective over its group.
  void reduce(std::size_t unit_idx);
  /// Completes all started reductions. collective over their groups.
  void finish_reductions();
  /// Gradient shards to zero, before the first micro-step. local.
  void zero_gradients();

 private:
  struct Gathered {
    BufferPool::Loan loan;
    const T* data = nullptr;
    comm::Request request;
  };
  struct Reduction {
    std::size_t unit_idx = 0;
    BufferPool::Loan contribution;  ///< [flat_size] f32, or the bf16 copy that travels
    BufferPool::Loan sum;           ///< [shard_size]
    comm::Request request;
  };

  void finish_oldest_reduction();

  kernel::Execution execution_;
  GradientTransport transport_;
  std::deque<Unit> units_;  // a deque: units neither move nor copy, slices point into them
  std::vector<std::optional<Gathered>> gathered_;
  std::vector<std::optional<BufferPool::Loan>> gradients_;
  std::deque<Reduction> reductions_;
  BufferPool pool_;
};

}  // namespace tessera::zero3
