// SPDX-License-Identifier: Apache-2.0
// The parameters of whole units in the working type. On one node all ranks write their shards next
// to one another into shared memory, where the whole unit lies for good and gathering moves
// nothing. Over several nodes a unit comes once to each node, each rank fetching the shards of its
// peers. Without shared memory a unit travels into a buffer of each rank.
#pragma once

#include <chrono>
#include <deque>
#include <vector>

#include "shared_slots.hpp"
#include "tessera/zero3/buffer_pool.hpp"
#include "tessera/zero3/unit.hpp"

namespace tessera::zero3 {

template <class T>
class GatheredUnits {
 public:
  /// Gives the units their masters. groups [units]: null where the ranks share no memory.
  /// collective over the units' groups.
  GatheredUnits(std::deque<Unit>& units, const std::vector<const NodeGroup*>& groups,
                BufferPool& pool);

  /// As in ParameterStore.
  void prefetch(std::size_t unit_idx);
  const T* gather(std::size_t unit_idx);
  void release(std::size_t unit_idx);
  void progress();
  void open_masters();
  kernel::Vector<T> working_shard(std::size_t unit_idx) const;
  void set_written(std::size_t unit_idx);

 private:
  struct State {
    const Unit* unit = nullptr;
    const NodeGroup* group = nullptr;
    T* whole = nullptr;              ///< [flat_size], for good; null: the unit travels
    kernel::Vector<T> private_copy;  ///< what `whole` points to in a group of one
    std::int64_t written = 0;  ///< since which opening this rank's shard in `whole` is written
    bool gathered = false;
    SharedSlot* slot = nullptr;  ///< where a unit comes to, or
    BufferPool::Loan loan;       ///< in memory of this rank alone
    comm::Request request;
    std::chrono::steady_clock::time_point begin;  ///< of its coming
  };

  void place_on_node(std::deque<Unit>& units, const NodeGroup& group);
  void place_alone(Unit& unit, State& state);
  void start_travelling(State& state);
  void start_coming(State& state);
  void count(const State& state, std::int64_t num_moved_shards) const;
  kernel::Vector<T> shard_of(const State& state, T* whole) const;

  kernel::Execution execution_;
  std::vector<State> states_;
  std::vector<comm::SharedMemory> regions_;
  SharedSlots slots_;
  BufferPool& pool_;
  std::int64_t num_openings_ = 1;  ///< of the masters; new ones are open
  bool used_ = false;              ///< since the last opening something was gathered or written
};

}  // namespace tessera::zero3
