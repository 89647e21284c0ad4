// SPDX-License-Identifier: Apache-2.0
#include "shared_slots.hpp"

namespace tessera::zero3 {

namespace {

/// Lent to a small borrower, a large slot would be missing, and made a second time.
bool is_too_large(std::int64_t capacity_bytes, std::int64_t bytes) {
  return capacity_bytes > bytes + bytes / 4;
}

}  // namespace

/// The smallest free one that is large enough, but none that a much larger unit will want.
SharedSlot* SharedSlots::find(const NodeGroup& group, std::int64_t segment_bytes) {
  SharedSlot* best = nullptr;
  for (SharedSlot& slot : slots_) {
    const std::int64_t capacity_bytes = slot.memory_.segment_bytes();
    if (slot.in_use_ || slot.group_ != &group || capacity_bytes < segment_bytes) continue;
    if (is_too_large(capacity_bytes, segment_bytes)) continue;
    if (best == nullptr || capacity_bytes < best->memory_.segment_bytes()) best = &slot;
  }
  return best;
}

SharedSlot* SharedSlots::borrow(const NodeGroup& group, std::string_view what,
                                std::int64_t segment_bytes) {
  SharedSlot* slot = find(group, segment_bytes);
  if (slot == nullptr) {
    auto counters = group.allocate_counters(2);
    if (!counters) return nullptr;
    auto memory = group.allocate(what, segment_bytes);
    if (!memory) return nullptr;
    slots_.push_back(SharedSlot(group, std::move(*memory), std::move(*counters)));
    slot = &slots_.back();
  }
  slot->counters_.wait(what, SharedSlot::left, slot->use_);
  ++slot->use_;
  slot->in_use_ = true;
  return slot;
}

}  // namespace tessera::zero3
