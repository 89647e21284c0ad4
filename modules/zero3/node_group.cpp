// SPDX-License-Identifier: Apache-2.0
#include "node_group.hpp"

#include <array>

#include "kernel/allocate.hpp"

namespace tessera::zero3 {
namespace {

/// Every node has equally many ranks, and they are consecutive. The same on all ranks.
bool is_regular(const comm::Communicator& group, const comm::Communicator& node) {
  const auto first = node.all_reduce_value<std::int32_t>("first rank of the node", group.rank(),
                                                         comm::ReduceOp::min);
  const bool in_order = first % node.size() == 0 && group.rank() == first + node.rank();
  std::array<std::int32_t, 3> largest{node.size(), -node.size(), in_order ? 0 : 1};
  group.all_reduce("ranks of the nodes", std::span<std::int32_t>(largest), comm::ReduceOp::max);
  return largest[0] == -largest[1] && largest[2] == 0;
}

}  // namespace

std::unique_ptr<NodeGroup> NodeGroup::make(const comm::Communicator& group, std::size_t num_units) {
  if (group.size() == 1 || group.has_device_collectives() || !kernel::host_sees_memory()) {
    return nullptr;
  }
  comm::Communicator node = group.split_node(group.name() + " on this node");
  if (!is_regular(group, node) || node.size() == 1) return nullptr;
  std::unique_ptr<NodeGroup> made(new NodeGroup(group, std::move(node)));
  if (made->num_nodes() > 1) {
    made->peers_.emplace(group.split(made->node().rank(), group.name() + " across nodes"));
  }
  made->counters_ = made->allocate_counters(1 + static_cast<std::int64_t>(num_units));
  return made->counters_ ? std::move(made) : nullptr;
}

bool NodeGroup::on_all_nodes(bool here) const {
  if (num_nodes() == 1) return here;
  return group_->all_reduce_value<std::int32_t>("shared memory on all nodes", here ? 1 : 0,
                                                comm::ReduceOp::min) != 0;
}

std::optional<comm::SharedMemory> NodeGroup::allocate(std::string_view what,
                                                      std::int64_t segment_bytes) const {
  auto memory = comm::SharedMemory::allocate(node_, what, segment_bytes);
  return on_all_nodes(memory.has_value()) ? std::move(memory) : std::nullopt;
}

std::optional<comm::SharedCounters> NodeGroup::allocate_counters(std::int64_t num_counters) const {
  auto counters = comm::SharedCounters::allocate(node_, num_counters);
  return on_all_nodes(counters.has_value()) ? std::move(counters) : std::nullopt;
}

}  // namespace tessera::zero3
