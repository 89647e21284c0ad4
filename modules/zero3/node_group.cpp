// SPDX-License-Identifier: Apache-2.0
#include "node_group.hpp"

namespace tessera::zero3 {

std::unique_ptr<NodeGroup> NodeGroup::make(const comm::Communicator& group, std::size_t num_units) {
  if (group.size() == 1) return nullptr;
  comm::Communicator node = group.split_node(group.name() + " on this node");
  const bool is_whole = node.size() == group.size();
  if (group.all_reduce_value<std::int32_t>("one node", is_whole, comm::ReduceOp::min) == 0) {
    return nullptr;
  }
  auto counters = comm::SharedCounters::allocate(
      node, NodeCounter::first_unit + static_cast<std::int64_t>(num_units));
  if (!counters) return nullptr;
  return std::unique_ptr<NodeGroup>(new NodeGroup(std::move(node), std::move(*counters)));
}

}  // namespace tessera::zero3
