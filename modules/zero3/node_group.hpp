// SPDX-License-Identifier: Apache-2.0
// The ranks of a group as they sit on nodes: those of one node share memory, and each exchanges
// with the ranks that have its place on the other nodes.
#pragma once

#include <memory>
#include <optional>

#include "comm/shared_counters.hpp"

namespace tessera::zero3 {

class NodeGroup {
 public:
  /// Null on all ranks alike unless every node has equally many ranks of the group, two or more,
  /// consecutive in the group, and they share memory. collective over group.
  static std::unique_ptr<NodeGroup> make(const comm::Communicator& group, std::size_t num_units);

  const comm::Communicator& node() const { return node_; }
  /// The ranks with this rank's place on each node, in the order of the nodes.
  const comm::Communicator& peers() const { return *peers_; }
  int num_nodes() const { return group_->size() / node_.size(); }

  /// Segments of each node's memory, on all nodes or on none. collective over the group.
  std::optional<comm::SharedMemory> allocate(std::string_view what,
                                             std::int64_t segment_bytes) const;
  std::optional<comm::SharedCounters> allocate_counters(std::int64_t num_counters) const;

  /// This rank reads nothing any more that was gathered before opening number `value` of the
  /// masters; and waiting until all ranks of the node have said so.
  void set_opened(std::int64_t value) const { counters_->set(0, value); }
  void wait_opened(std::int64_t value) const { counters_->wait("masters opened", 0, value); }
  /// This rank's shard of a unit holds the values since that opening.
  void set_written(std::size_t unit_idx, std::int64_t value) const {
    counters_->set(1 + static_cast<std::int64_t>(unit_idx), value);
  }
  void wait_written(std::string_view unit, std::size_t unit_idx, std::int64_t value) const {
    counters_->wait(unit, 1 + static_cast<std::int64_t>(unit_idx), value);
  }

 private:
  NodeGroup(const comm::Communicator& group, comm::Communicator node)
      : group_(&group), node_(std::move(node)) {}
  bool on_all_nodes(bool here) const;

  const comm::Communicator* group_;
  comm::Communicator node_;
  std::optional<comm::Communicator> peers_;  // where there are several nodes
  std::optional<comm::SharedCounters> counters_;
};

}  // namespace tessera::zero3
