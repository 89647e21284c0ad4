// SPDX-License-Identifier: Apache-2.0
// Buffers in a node's shared memory that all its ranks fill, read and leave, again and again: the
// contributions to a unit's gradient, or a unit that has come from other nodes.
#pragma once

#include <list>

#include "node_group.hpp"

namespace tessera::zero3 {

class SharedSlot {
 public:
  std::byte* data() const { return memory_.data(); }
  std::byte* segment(int node_rank) const { return memory_.segment(node_rank); }

  /// This rank has written its part. local.
  void set_filled() const { counters_.set(filled, use_); }
  /// Until all ranks of the node have. Throws Error::communication past the deadline.
  void wait_filled(std::string_view what) const { counters_.wait(what, filled, use_); }
  /// This rank is done with what it reads here; the slot may be borrowed again. local.
  void leave() {
    counters_.set(left, use_);
    in_use_ = false;
  }

 private:
  friend class SharedSlots;
  enum Counter { filled, left };
  SharedSlot(const NodeGroup& group, comm::SharedMemory memory, comm::SharedCounters counters)
      : group_(&group), memory_(std::move(memory)), counters_(std::move(counters)) {}

  const NodeGroup* group_;
  comm::SharedMemory memory_;
  comm::SharedCounters counters_;
  std::int64_t use_ = 0;  // the number of this one
  bool in_use_ = false;
};

class SharedSlots {
 public:
  /// A slot of at least segment_bytes for each rank of the node. All ranks choose the same one,
  /// because they go by what each has done itself, in the same order. Waits until the neighbours
  /// have left it. Null, on all ranks of the group alike, where there is no more shared memory.
  /// collective over the group.
  SharedSlot* borrow(const NodeGroup& group, std::string_view what, std::int64_t segment_bytes);

 private:
  SharedSlot* find(const NodeGroup& group, std::int64_t segment_bytes);

  std::list<SharedSlot> slots_;
};

}  // namespace tessera::zero3
