// SPDX-License-Identifier: Apache-2.0
// The ranks of a group as they sit on nodes, and the counters by which those of one node meet.
#pragma once

#include <memory>

#include "comm/shared_counters.hpp"

namespace tessera::zero3 {

/// What a counter of a NodeGroup counts; those of units follow.
enum NodeCounter : std::int64_t {
  masters_opened,  ///< this rank reads nothing gathered before any more
  contributed,     ///< this rank's gradients of so many reductions lie ready
  summed,          ///< this rank has read its neighbours' gradients of so many reductions
  first_unit       ///< + unit: the values since which opening of the masters are in its shard
};

/// A group whose ranks share memory: all of them are on one node.
class NodeGroup {
 public:
  /// Null on all ranks alike where they do not. collective over group.
  static std::unique_ptr<NodeGroup> make(const comm::Communicator& group, std::size_t num_units);

  const comm::Communicator& node() const { return node_; }
  const comm::SharedCounters& counters() const { return counters_; }
  /// Reductions are numbered from 1, in the order that all ranks start them in. local.
  std::int64_t next_reduction() { return ++num_reductions_; }

 private:
  NodeGroup(comm::Communicator node, comm::SharedCounters counters)
      : node_(std::move(node)), counters_(std::move(counters)) {}

  comm::Communicator node_;
  comm::SharedCounters counters_;
  std::int64_t num_reductions_ = 0;
};

}  // namespace tessera::zero3
