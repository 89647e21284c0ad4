// SPDX-License-Identifier: Apache-2.0
#include "symbolic_store.hpp"

#include <algorithm>

namespace tessera::study {
namespace {

constexpr std::int64_t bf16_bytes = 2;

}  // namespace

SymbolicStore::SymbolicStore(SymbolicMemory& memory, std::vector<SymbolicUnit> units,
                             std::int64_t element_bytes, zero3::GradientTransport transport)
    : memory_(memory),
      units_(std::move(units)),
      element_bytes_(element_bytes),
      transport_(transport),
      gathered_(units_.size()),
      contributions_(units_.size()) {
  for (const SymbolicUnit& unit : units_) {
    if (unit.node_size > 1 && unit.num_nodes() > 1) max_in_flight_ = 2;
  }
}

SymbolicStore::Block SymbolicStore::Slots::borrow(const SymbolicUnit& unit,
                                                  std::int64_t segment_bytes) {
  Slot* best = nullptr;
  for (Slot& slot : slots) {
    if (slot.in_use || slot.is_expert != unit.is_expert) continue;
    if (slot.segment_bytes < segment_bytes) continue;
    if (slot.segment_bytes > segment_bytes + segment_bytes / 4) continue;
    if (best == nullptr || slot.segment_bytes < best->segment_bytes) best = &slot;
  }
  if (best == nullptr) {
    best = &slots.emplace_back(Slot{unit.is_expert, segment_bytes, false});
    bytes += segment_bytes;
  }
  best->in_use = true;
  return {best, [](Slot* slot) { slot->in_use = false; }};
}

void SymbolicStore::gather(std::size_t unit_idx) {
  const SymbolicUnit& unit = units_[unit_idx];
  if (gathered_[unit_idx] || unit.group_size == 1 || unit.lies_on_node()) return;
  gathered_[unit_idx] =
      unit.node_size > 1
          ? parameter_slots_.borrow(unit, unit.num_nodes() * unit.shard_size * element_bytes_)
          : memory_.take(MemoryKind::gathered_parameters, unit.flat_size * element_bytes_);
}

void SymbolicStore::gradient(std::size_t unit_idx) {
  const SymbolicUnit& unit = units_[unit_idx];
  if (contributions_[unit_idx] || unit.group_size == 1) return;
  const std::int64_t bytes = unit.flat_size * f32_bytes;
  contributions_[unit_idx] = unit.node_size > 1
                                 ? gradient_slots_.borrow(unit, bytes)
                                 : memory_.take(MemoryKind::gathered_gradients, bytes);
}

void SymbolicStore::reduce(std::size_t unit_idx) {
  const SymbolicUnit& unit = units_[unit_idx];
  if (unit.group_size == 1) return;
  gradient(unit_idx);
  Sum sum{unit_idx, std::move(contributions_[unit_idx]), {}, {}, false};
  contributions_[unit_idx] = {};
  while (sums_.size() >= max_in_flight_) finish_oldest();
  if (!sums_.empty()) sum_node(sums_.back());
  if (unit.node_size == 1) start_travelling(sum, unit.group_size);
  sums_.push_back(std::move(sum));
}

void SymbolicStore::sum_node(Sum& sum) {
  const SymbolicUnit& unit = units_[sum.unit_idx];
  if (unit.node_size == 1 || unit.lies_on_node() || sum.is_partial) return;
  sum.contribution =
      memory_.take(MemoryKind::gathered_gradients, unit.num_nodes() * unit.shard_size * f32_bytes);
  sum.is_partial = true;
  start_travelling(sum, unit.num_nodes());
}

void SymbolicStore::start_travelling(Sum& sum, std::int64_t num_shards) {
  const std::int64_t shard_size = units_[sum.unit_idx].shard_size;
  constexpr std::int64_t most_message_bytes = 8 << 20;  // comm/operations_mpi.cpp, ReduceScatter
  const bool narrow = transport_ == zero3::GradientTransport::bf16;
  const std::int64_t bytes = narrow ? bf16_bytes : f32_bytes;
  if (narrow) {
    sum.travelling = memory_.take(MemoryKind::gathered_gradients, num_shards * shard_size * bytes);
  }
  sum.received = memory_.take(MemoryKind::gathered_gradients, shard_size * bytes);
  if (narrow) sum.contribution = {};
  message_bytes_ =
      std::max(message_bytes_, std::min(most_message_bytes, (num_shards - 1) * shard_size * bytes));
}

void SymbolicStore::finish_oldest() {
  Sum sum = std::move(sums_.front());
  sums_.pop_front();
  sum_node(sum);
  if (sum.received && transport_ == zero3::GradientTransport::bf16) {
    memory_.touch(MemoryKind::gathered_gradients, units_[sum.unit_idx].shard_size * f32_bytes);
  }
}

void SymbolicStore::finish_reductions() {
  while (!sums_.empty()) finish_oldest();
}

}  // namespace tessera::study
