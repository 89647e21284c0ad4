// SPDX-License-Identifier: Apache-2.0
#include "comm/process_grid.hpp"

#include <fmt/ranges.h>

#include <array>
#include <vector>

#include "comm/device_collectives.hpp"

namespace tessera::comm {
namespace {

std::vector<int> divisors(int n) {
  std::vector<int> found;
  for (int d = 1; d <= n; ++d) {
    if (n % d == 0) found.push_back(d);
  }
  return found;
}

// The number of ranks in an expert group, once all ranks are known to ask for the same valid one.
int agreed_group_size(const Communicator& world, GridShape shape) {
  std::array<std::int32_t, 2> extremes = {shape.expert, -shape.expert};
  world.all_reduce("grid shape", std::span<std::int32_t>(extremes), ReduceOp::max);
  const int largest = extremes[0], smallest = -extremes[1];
  if (largest != smallest) {
    fail(ErrorKind::usage,
         "the ranks ask for different process grids: expert = {} and expert = {} (they "
         "would form different groups); give all ranks the same",
         smallest, largest);
  }
  if (largest < 1 || world.size() % largest != 0) {
    fail(ErrorKind::usage,
         "expert = {} does not divide the number of ranks, {} (every group holds each "
         "expert once); choose one of {}",
         largest, world.size(), fmt::join(divisors(world.size()), ", "));
  }
  return largest;
}

CommunicatorOptions with_device(CommunicatorOptions options) {
  options.device = true;
  return options;
}

}  // namespace

ProcessGrid::ProcessGrid(MPI_Comm parent, GridShape shape, CommunicatorOptions options)
    : world_(parent, "world", with_device(options)),
      expert_(world_.split(world_.rank() / agreed_group_size(world_, shape), "expert")),
      replica_(world_.split(world_.rank() % shape.expert, "replica")),
      node_(world_.split_node("node")) {
  num_nodes_ = world_.all_reduce_value<std::int32_t>("number of nodes", node_.rank() == 0 ? 1 : 0,
                                                     ReduceOp::sum);
}

std::string ProcessGrid::describe() const {
  return fmt::format("{} rank{} = {} expert x {} replica, {} node{}", world_.size(),
                     world_.size() == 1 ? "" : "s", expert_.size(), replica_.size(), num_nodes_,
                     num_nodes_ == 1 ? "" : "s") +
         (world_.has_device_collectives() ? "; arrays travel by " + describe_device_transport()
                                          : std::string());
}

}  // namespace tessera::comm
