// SPDX-License-Identifier: Apache-2.0
#include "gathered_units.hpp"

#include <algorithm>
#include <type_traits>

#include "base/contract.hpp"
#include "base/phase_timer.hpp"
#include "base/seconds_since.hpp"
#include "kernel/rows.hpp"

namespace tessera::zero3 {
using Clock = std::chrono::steady_clock;

template <class T>
GatheredUnits<T>::GatheredUnits(std::deque<Unit>& units,
                                const std::vector<const NodeGroup*>& groups, BufferPool& pool)
    : states_(units.size()), pool_(pool) {
  for (std::size_t i = 0; i < units.size(); ++i) {
    states_[i].unit = &units[i];
    states_[i].group = groups[i];
  }
  for (std::size_t i = 0; i < units.size(); ++i) {
    const NodeGroup* group = groups[i];
    const bool is_first = std::find(groups.begin(), groups.begin() + static_cast<long>(i), group) ==
                          groups.begin() + static_cast<long>(i);
    if (group != nullptr && group->num_nodes() == 1 && is_first) place_on_node(units, *group);
  }
  for (std::size_t i = 0; i < units.size(); ++i) {
    if (states_[i].whole == nullptr) place_alone(units[i], states_[i]);
  }
}

/// One region for all units of a group, one unit after the other.
template <class T>
void GatheredUnits<T>::place_on_node(std::deque<Unit>& units, const NodeGroup& group) {
  std::int64_t shard_size = 0;
  for (const State& state : states_) {
    if (state.group == &group) shard_size += state.unit->layout().shard_size();
  }
  auto region = group.allocate("parameters", shard_size * std::int64_t{sizeof(T)});
  if (!region) return;
  T* next = reinterpret_cast<T*>(region->data());
  for (std::size_t i = 0; i < states_.size(); ++i) {
    State& state = states_[i];
    if (state.group != &group) continue;
    state.whole = next;
    next += state.unit->layout().flat_size();
    if constexpr (std::is_same_v<T, float>) {
      units[i].set_master(shard_of(state, state.whole));
    } else {
      units[i].allocate_master();
    }
  }
  regions_.push_back(std::move(*region));
}

template <class T>
void GatheredUnits<T>::place_alone(Unit& unit, State& state) {
  if (state.group != nullptr && state.group->num_nodes() == 1) state.group = nullptr;
  unit.allocate_master();
  if (unit.group().size() > 1) return;
  if constexpr (std::is_same_v<T, float>) {
    state.whole = unit.master().data();  // the shard is the whole unit
  } else {
    state.private_copy = kernel::allocate_zeros<kernel::Vector<T>>("parameters " + unit.name(),
                                                                   unit.layout().flat_size());
    state.whole = state.private_copy.data();
  }
}

template <class T>
kernel::Vector<T> GatheredUnits<T>::shard_of(const State& state, T* whole) const {
  const std::int64_t size = state.unit->layout().shard_size();
  return kernel::Vector<T>(whole + state.unit->group().rank() * size, size);
}

template <class T>
kernel::Vector<T> GatheredUnits<T>::working_shard(std::size_t unit_idx) const {
  const State& state = states_[unit_idx];
  if (std::is_same_v<T, float> || state.whole == nullptr) return {};
  return shard_of(state, state.whole);
}

template <class T>
void GatheredUnits<T>::set_written(std::size_t unit_idx) {
  State& state = states_[unit_idx];
  state.written = num_openings_;
  used_ = true;
  if (state.whole == nullptr || state.group == nullptr) return;
  execution_.fence();  // the others read what the kernels wrote
  state.group->set_written(unit_idx, num_openings_);
}

template <class T>
void GatheredUnits<T>::prefetch(std::size_t unit_idx) {
  State& state = states_[unit_idx];
  if (state.gathered) return;
  const TimedPhase timed(StepPhase::gather);
  state.gathered = true;
  used_ = true;
  if (state.whole == nullptr) return start_travelling(state);
  count(state, 0);
  if (state.written == num_openings_) return;
  const kernel::Vector<T> copy = working_shard(unit_idx);
  if (copy.extent(0) > 0) kernel::convert<float, T>(execution_, state.unit->master(), copy);
  set_written(unit_idx);
}

template <class T>
void GatheredUnits<T>::start_travelling(State& state) {
  if (state.group != nullptr) start_coming(state);
  if (state.slot != nullptr) return;
  const std::int64_t flat_size = state.unit->layout().flat_size();
  state.loan = pool_.borrow(flat_size * std::int64_t{sizeof(T)});
  const kernel::Vector<T> whole(state.loan.template as<T>(), flat_size);
  const kernel::Vector<T> mine = shard_of(state, whole.data());
  kernel::convert<float, T>(execution_, state.unit->master(), mine);
  state.request = state.unit->group().start_all_gather(comm::compute_stream(), state.unit->name(),
                                                       std::span<const T>(mine.data(), mine.size()),
                                                       std::span<T>(whole.data(), whole.size()));
}

/// Into memory of the node: this rank brings the shards of its peers.
template <class T>
void GatheredUnits<T>::start_coming(State& state) {
  const NodeGroup& group = *state.group;
  const std::int64_t shard_size = state.unit->layout().shard_size();
  state.slot =
      slots_.borrow(group, "parameters", group.num_nodes() * shard_size * std::int64_t{sizeof(T)});
  if (state.slot == nullptr) return;
  count(state, group.num_nodes() - 1);
  state.begin = Clock::now();
  T* whole = reinterpret_cast<T*>(state.slot->data());
  kernel::convert<float, T>(execution_, state.unit->master(), shard_of(state, whole));
  execution_.fence();
  state.request = group.peers().start_all_gather_strided(
      state.unit->name(), whole + group.node().rank() * shard_size, shard_size,
      group.node().size() * shard_size);
}

/// A gather brings the others' shards, logically; really so many.
template <class T>
void GatheredUnits<T>::count(const State& state, std::int64_t num_moved_shards) const {
  const comm::Communicator& group = state.unit->group();
  const std::int64_t shard_bytes = state.unit->layout().shard_size() * std::int64_t{sizeof(T)};
  group.count_volume(&comm::Traffic::all_gather,
                     {(group.size() - 1) * shard_bytes, num_moved_shards * shard_bytes});
}

template <class T>
const T* GatheredUnits<T>::gather(std::size_t unit_idx) {
  prefetch(unit_idx);
  State& state = states_[unit_idx];
  const TimedPhase timed(StepPhase::gather_wait);
  const auto wait_begin = Clock::now();
  if (state.whole != nullptr) {
    if (state.group != nullptr) {
      state.group->wait_written(state.unit->name(), unit_idx, num_openings_);
      state.unit->group().count_time(seconds_since(wait_begin), seconds_since(wait_begin));
    }
    return state.whole;
  }
  const bool has_come = !state.request.pending();
  state.request.wait();
  if (state.slot == nullptr) return state.loan.template as<T>();
  if (!has_come) {
    state.slot->set_filled();
    state.slot->wait_filled(state.unit->name());
    state.unit->group().count_time(seconds_since(state.begin), seconds_since(wait_begin));
  }
  return reinterpret_cast<const T*>(state.slot->data());
}

template <class T>
void GatheredUnits<T>::release(std::size_t unit_idx) {
  State& state = states_[unit_idx];
  TESSERA_EXPECT(state.gathered && !state.request.pending());
  state.gathered = false;
  state.loan.give_back();  // who borrows it next follows the kernels that still read it
  if (state.slot != nullptr) {
    execution_.fence();
    state.slot->leave();
  }
  state.slot = nullptr;
}

template <class T>
void GatheredUnits<T>::progress() {
  for (State& state : states_) state.request.test();
}

/// A rank that has come here has released all that it gathered before; once all have come, each may
/// write its shard.
template <class T>
void GatheredUnits<T>::open_masters() {
  if (!used_) return;
  used_ = false;
  ++num_openings_;
  execution_.fence();  // kernels may still read what others will write
  for (const State& state : states_) {
    TESSERA_EXPECT(!state.gathered);
    if (state.group != nullptr) state.group->set_opened(num_openings_);
  }
  for (const State& state : states_) {
    if (state.group != nullptr) state.group->wait_opened(num_openings_);
  }
}

template class GatheredUnits<float>;
template class GatheredUnits<bf16>;

}  // namespace tessera::zero3
