// SPDX-License-Identifier: Apache-2.0
#include "gradient_sums.hpp"

#include "base/contract.hpp"
#include "base/phase_timer.hpp"
#include "kernel/rows.hpp"
#include "kernel/sum_parts.hpp"

namespace tessera::zero3 {
namespace {

using kernel::Into;

// One whole-unit gradient is summed while the next is being computed.
constexpr std::size_t max_sums_in_flight = 1;

template <class T>
kernel::Vector<T> vector_in(const BufferPool::Loan& loan, std::int64_t size) {
  return kernel::Vector<T>(loan.as<T>(), size);
}

template <class T>
std::span<T> span_of(const kernel::Vector<T>& vector) {
  return {vector.data(), vector.size()};
}

}  // namespace

GradientSums::GradientSums(const std::deque<Unit>& units, const std::vector<NodeGroup*>& groups,
                           GradientTransport transport, BufferPool& pool)
    : units_(units),
      groups_(groups),
      transport_(transport),
      pool_(pool),
      contributions_(units.size()),
      is_zero_(units.size(), false) {}

void GradientSums::zero() { is_zero_.assign(units_.size(), true); }

float* GradientSums::contribution(std::size_t unit_idx) {
  const Unit& unit = units_[unit_idx];
  const std::int64_t size = unit.layout().flat_size();
  if (unit.group().size() == 1) {
    if (is_zero_[unit_idx]) Kokkos::deep_copy(execution_, unit.gradient(), 0.0f);
    is_zero_[unit_idx] = false;
    return unit.gradient().data();
  }
  std::optional<Contribution>& mine = contributions_[unit_idx];
  if (!mine) {
    const TimedPhase timed(StepPhase::reduce_scatter);
    mine = borrow(unit_idx);
    Kokkos::deep_copy(execution_, kernel::Vector<float>(mine->data, size), 0.0f);
  }
  return mine->data;
}

GradientSums::Contribution GradientSums::borrow(std::size_t unit_idx) {
  const Unit& unit = units_[unit_idx];
  const std::int64_t bytes = unit.layout().flat_size() * std::int64_t{sizeof(float)};
  Contribution contribution;
  if (groups_[unit_idx] != nullptr) contribution.slot = borrow_slot(*groups_[unit_idx], bytes);
  if (contribution.slot != nullptr) {
    contribution.data = contribution.slot->of(unit.group().rank());
  } else {
    contribution.loan = pool_.borrow(bytes);
    contribution.data = contribution.loan.as<float>();
  }
  return contribution;
}

/// Of the free slots the smallest that is large enough, but none that a much larger unit will want.
/// Null, on all ranks of the group alike, where there is no more shared memory.
GradientSums::Slot* GradientSums::borrow_slot(const NodeGroup& group, std::int64_t bytes) {
  Slot* best = nullptr;
  for (Slot& slot : slots_) {
    const std::int64_t capacity = slot.memory.segment_bytes();
    if (slot.in_use || slot.group != &group || capacity < bytes) continue;
    if (BufferPool::is_too_large(capacity, bytes)) continue;
    if (best == nullptr || capacity < best->memory.segment_bytes()) best = &slot;
  }
  if (best == nullptr) {
    auto memory = comm::SharedMemory::allocate(group.node(), "gradients", bytes);
    if (!memory) return nullptr;
    best = &slots_.emplace_back(Slot{&group, std::move(*memory)});
  }
  // Neighbours may still read what this rank wrote into it last time.
  group.counters().wait("gradients summed", NodeCounter::summed, best->last_sum);
  best->in_use = true;
  return best;
}

void GradientSums::start(std::size_t unit_idx) {
  const Unit& unit = units_[unit_idx];
  if (unit.group().size() == 1) return;  // the contribution is the shard itself
  const TimedPhase timed(StepPhase::reduce_scatter);
  contribution(unit_idx);
  Sum sum;
  sum.unit_idx = unit_idx;
  sum.contribution = std::move(*contributions_[unit_idx]);
  contributions_[unit_idx].reset();
  execution_.fence();  // others read what the kernels wrote
  if (Slot* slot = sum.contribution.slot) {
    slot->last_sum = groups_[unit_idx]->next_reduction();
    groups_[unit_idx]->counters().set(NodeCounter::contributed, slot->last_sum);
  }
  while (sums_.size() >= max_sums_in_flight) finish_oldest();
  if (sum.contribution.slot == nullptr) start_travelling(sum);
  sums_.push_back(std::move(sum));
}

void GradientSums::start_travelling(Sum& sum) {
  const Unit& unit = units_[sum.unit_idx];
  const std::int64_t flat_size = unit.layout().flat_size(), shard_size = unit.layout().shard_size();
  const kernel::Vector<float> whole(sum.contribution.data, flat_size);
  if (transport_ == GradientTransport::bf16) {
    sum.travelling = pool_.borrow(flat_size * std::int64_t{sizeof(bf16)});
    sum.received = pool_.borrow(shard_size * std::int64_t{sizeof(bf16)});
    const auto narrow = vector_in<bf16>(sum.travelling, flat_size);
    kernel::convert<float, bf16>(execution_, whole, narrow);
    execution_.fence();
    sum.contribution = Contribution();
    sum.request =
        unit.group().start_reduce_scatter(unit.name(), std::span<const bf16>(span_of(narrow)),
                                          span_of(vector_in<bf16>(sum.received, shard_size)));
    return;
  }
  sum.received = pool_.borrow(shard_size * std::int64_t{sizeof(float)});
  sum.request =
      unit.group().start_reduce_scatter(unit.name(), std::span<const float>(span_of(whole)),
                                        span_of(vector_in<float>(sum.received, shard_size)));
}

void GradientSums::finish_oldest() {
  TimedPhase timed(StepPhase::reduce_scatter_wait);
  Sum sum = std::move(sums_.front());
  sums_.pop_front();
  const Into into = is_zero_[sum.unit_idx] ? Into::overwrite : Into::accumulate;
  is_zero_[sum.unit_idx] = false;
  if (Slot* slot = sum.contribution.slot) {
    const comm::SharedCounters& counters = slot->group->counters();
    counters.wait(units_[sum.unit_idx].name(), NodeCounter::contributed, slot->last_sum);
    timed.next(StepPhase::reduce_scatter);
    add_in_place(sum, into);
    counters.set(NodeCounter::summed, slot->last_sum);
    slot->in_use = false;
    return;
  }
  sum.request.wait();
  timed.next(StepPhase::reduce_scatter);
  add_received(sum, into);
}

void GradientSums::add_in_place(const Sum& sum, Into into) {
  const Unit& unit = units_[sum.unit_idx];
  std::vector<const float*> parts;
  for (int rank = 0; rank < unit.group().size(); ++rank) {
    parts.push_back(sum.contribution.slot->of(rank) +
                    unit.group().rank() * unit.layout().shard_size());
  }
  if (transport_ == GradientTransport::bf16) {
    kernel::sum_parts<bf16>(execution_, parts, into, unit.gradient());
  } else {
    kernel::sum_parts<float>(execution_, parts, into, unit.gradient());
  }
  execution_.fence();
}

void GradientSums::add_received(const Sum& sum, Into into) {
  const Unit& unit = units_[sum.unit_idx];
  const std::int64_t size = unit.layout().shard_size();
  BufferPool::Loan widened;
  kernel::Vector<float> received = vector_in<float>(sum.received, size);
  if (transport_ == GradientTransport::bf16) {
    widened = pool_.borrow(size * std::int64_t{sizeof(float)});
    received = vector_in<float>(widened, size);
    kernel::convert<bf16, float>(execution_, vector_in<bf16>(sum.received, size), received);
  }
  if (into == Into::overwrite) {
    Kokkos::deep_copy(execution_, unit.gradient(), received);
  } else {
    kernel::add(execution_, received, unit.gradient());
  }
  execution_.fence();
}

void GradientSums::finish_all() {
  while (!sums_.empty()) finish_oldest();
  for (std::size_t i = 0; i < units_.size(); ++i) {
    if (is_zero_[i]) Kokkos::deep_copy(execution_, units_[i].gradient(), 0.0f);
    is_zero_[i] = false;
  }
}

}  // namespace tessera::zero3
