// SPDX-License-Identifier: Apache-2.0
// All units of a model on this rank, and the traffic between shards and whole units: gather just in
// time with the next one already on its way, release, reduce-scatter. The only code that touches
// shards during a step.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "tessera/zero3/buffer_pool.hpp"
#include "tessera/zero3/gradient_transport.hpp"
#include "tessera/zero3/unit.hpp"

namespace tessera::zero3 {

template <class T>
class GatheredUnits;
class GradientSums;
class NodeGroup;

/// Where the ranks of a unit's group are on one node, its parameters lie whole in shared memory in
/// type T and gradients are summed straight from the neighbours' buffers (with T = float the
/// masters themselves lie there). TESSERA_SHARED_MEMORY=off, or a full /dev/shm: everything
/// travels by MPI, with the same results to the bit. T, in {float, bf16}: the type in which
/// parameters are gathered and used.
template <class T>
class ParameterStore {
 public:
  /// collective over grid.world().
  ParameterStore(std::vector<UnitSpec> specs, GradientTransport transport = GradientTransport::f32);
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;
  ~ParameterStore();

  std::size_t num_units() const { return units_.size(); }
  Unit& unit(std::size_t unit_idx) { return units_[unit_idx]; }
  const Unit& unit(std::size_t unit_idx) const { return units_[unit_idx]; }
  const BufferPool& pool() const { return pool_; }

  /// From here on masters may be written, each until its unit is gathered next: no rank still reads
  /// what it gathered before. A new store's masters are open. Where the ranks of a group share
  /// memory, a rank must not run ahead and change what its neighbours still read; optimizer_step
  /// opens them itself. Nothing is gathered now. collective over the units' groups.
  void open_masters();
  /// Where the working-type copy of this rank's shard lies for good, [shard_size]; whoever writes
  /// the master may write it in the same pass, and then calls set_written(). Empty: there is none.
  /// local.
  kernel::Vector<T> working_shard(std::size_t unit_idx) const;
  void set_written(std::size_t unit_idx);

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
  /// The same buffer, not zeroed but for what lies between parameters, if nothing has been added to
  /// it yet: the caller overwrites all of the unit's gradient. Null otherwise. local.
  float* overwritable_gradient(std::size_t unit_idx);
  /// Starts the sum of all contributions over the group; the unit's gradient shard receives it
  /// (added) in finish_reductions() at the latest. collective over its group.
  void reduce(std::size_t unit_idx);
  /// Completes all started reductions. collective over their groups.
  void finish_reductions();
  /// Moves gathers and reductions in flight on; cheap, to be called between kernels: MPI moves
  /// nothing on its own. local.
  void progress();
  /// Gradient shards to zero, before the first micro-step. local.
  void zero_gradients();

 private:
  kernel::Execution execution_;
  std::deque<Unit> units_;  // a deque: units neither move nor copy, slices point into them
  BufferPool pool_;
  std::vector<std::unique_ptr<NodeGroup>> groups_;
  std::unique_ptr<GatheredUnits<T>> gathered_;
  std::unique_ptr<GradientSums> gradients_;
};

}  // namespace tessera::zero3
