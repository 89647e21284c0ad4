// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <tessera/study/collective_time.hpp>

#include "base/error.hpp"
#include "ring_time.hpp"

namespace tessera::study {
namespace {

/// Ranks of a group per node where it is the same on every node, else 1.
std::int64_t ranks_on_node(std::int64_t size, std::int64_t stride, std::int64_t ranks_per_node) {
  const std::int64_t on_node = std::min(size, ranks_per_node / stride);
  const bool is_regular = ranks_per_node % stride == 0 && on_node > 1 && size % on_node == 0;
  return is_regular ? on_node : 1;
}

/// Adds up messages that follow one another.
class Messages {
 public:
  Messages(const Group& group, const Machine& machine) : group_(group), machine_(machine) {}

  /// `senders` of the group's ranks on each node at once.
  void within_nodes(double count, double bytes, double senders) {
    add(machine_.node, count, bytes, senders * group_.sharing, false);
  }
  void between_nodes(double count, double bytes, double senders) {
    add(machine_.between_nodes(), count, bytes, senders * group_.sharing, true);
  }
  CollectiveSeconds sum() const {
    CollectiveSeconds sum = within_;
    sum.latency_s += between_.latency_s;
    sum.bandwidth_s += between_.bandwidth_s;
    sum.between_nodes = between_.seconds() > within_.seconds();
    return sum;
  }

 private:
  void add(const Tier& tier, double count, double bytes, double senders, bool between) {
    CollectiveSeconds& sum = between ? between_ : within_;
    sum.latency_s += count * tier.latency_s.value;
    sum.bandwidth_s += count * bytes / tier.bandwidth(senders);
  }
  const Group& group_;
  const Machine& machine_;
  CollectiveSeconds within_, between_;
};

CollectiveSeconds logarithmic(const Group& group, double bytes, const Machine& machine) {
  const auto p = static_cast<double>(group.size), on_node = static_cast<double>(group.on_node);
  Messages messages(group, machine);
  for (std::int64_t distance = 1; distance < group.size; distance *= 2) {
    const auto blocks = static_cast<double>(std::min(distance, group.size - distance));
    if (stays_on_node(group, distance)) {
      messages.within_nodes(1.0, blocks * bytes / p, on_node);
    } else {
      messages.between_nodes(1.0, blocks * bytes / p, on_node);
    }
  }
  return messages.sum();
}

CollectiveSeconds hierarchical(const Group& group, double bytes, const Machine& machine,
                               bool shares_memory) {
  const auto nodes = static_cast<double>(group.num_nodes());
  const auto on_node = static_cast<double>(group.on_node);
  Messages messages(group, machine);
  for (std::int64_t distance = 1; distance < group.num_nodes(); distance *= 2) {
    const auto blocks = static_cast<double>(std::min(distance, group.num_nodes() - distance));
    messages.between_nodes(1.0, blocks * bytes / (on_node * nodes), on_node);
  }
  if (!shares_memory) messages.within_nodes(on_node - 1.0, bytes / on_node, on_node);
  return messages.sum();
}

CollectiveSeconds all_to_all(Algorithm algorithm, const Group& group, double bytes,
                             const Machine& machine) {
  const auto p = static_cast<double>(group.size), on_node = static_cast<double>(group.on_node);
  const auto nodes = static_cast<double>(group.num_nodes());
  Messages messages(group, machine);
  switch (algorithm) {
    case Algorithm::ring:
      messages.within_nodes(on_node - 1.0, bytes / p, on_node);
      if (nodes > 1.0) messages.between_nodes(p - on_node, bytes / p, on_node);
      break;
    case Algorithm::logarithmic:  // Bruck: half of all blocks in each step
      for (std::int64_t distance = 1; distance < group.size; distance *= 2) {
        if (stays_on_node(group, distance)) {
          messages.within_nodes(1.0, bytes / 2.0, on_node);
        } else {
          messages.between_nodes(1.0, bytes / 2.0, on_node);
        }
      }
      break;
    case Algorithm::hierarchical:
      messages.within_nodes(on_node - 1.0, bytes / on_node, on_node);
      if (nodes > 1.0) messages.between_nodes(nodes - 1.0, bytes / nodes, on_node);
      break;
  }
  return messages.sum();
}

}  // namespace

std::string_view to_string(Axis axis) {
  switch (axis) {
    case Axis::world: return "world";
    case Axis::expert: return "expert";
    case Axis::replica: return "replica";
  }
  return "";
}

std::string_view to_string(Collective collective) {
  switch (collective) {
    case Collective::all_gather: return "all_gather";
    case Collective::reduce_scatter: return "reduce_scatter";
    case Collective::all_reduce: return "all_reduce";
    case Collective::all_to_all: return "all_to_all";
  }
  return "";
}

std::string_view to_string(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::ring: return "ring";
    case Algorithm::logarithmic: return "logarithmic";
    case Algorithm::hierarchical: return "hierarchical";
  }
  return "";
}

Algorithm parse_algorithm(std::string_view name) {
  for (const Algorithm each : {Algorithm::ring, Algorithm::logarithmic, Algorithm::hierarchical}) {
    if (name == to_string(each)) return each;
  }
  fail(ErrorKind::usage, "collectives '{}' are unknown; use ring, logarithmic or hierarchical",
       name);
}

Group group_of(Axis axis, const RunShape& shape) {
  const std::int64_t ranks_per_node = std::min(shape.ranks_per_node, shape.num_ranks);
  Group group;
  group.size = axis == Axis::world    ? shape.num_ranks
               : axis == Axis::expert ? shape.expert
                                      : shape.num_ranks / shape.expert;
  group.stride = axis == Axis::replica ? shape.expert : 1;
  group.on_node = ranks_on_node(group.size, group.stride, ranks_per_node);
  group.sharing = static_cast<double>(ranks_per_node) / static_cast<double>(group.on_node);
  return group;
}

bool is_power_of_two(std::int64_t num_ranks) { return (num_ranks & (num_ranks - 1)) == 0; }

bool stays_on_node(const Group& group, std::int64_t distance) {
  if (group.num_nodes() == 1) return true;
  return is_power_of_two(group.size) && is_power_of_two(group.on_node) && distance < group.on_node;
}

CollectiveSeconds ring_seconds(const Group& group, std::int64_t num_steps, double bytes,
                               const Machine& machine) {
  const auto k = static_cast<double>(num_steps), m = static_cast<double>(group.on_node);
  if (num_steps == 0) return {};
  const double near_latency_s = machine.node.latency_s.value;
  const double near_s = bytes / machine.node.bandwidth(m * group.sharing);
  if (group.num_nodes() == 1) return {k * near_latency_s, k * near_s, false};
  const Tier& network = machine.between_nodes();
  const double far_latency_s = network.latency_s.value;
  const double far_s = bytes / network.bandwidth(group.sharing);
  const CollectiveSeconds by_link{far_latency_s, k * std::max(far_s, near_s), true};
  // Around: as many links between nodes as fit, those within nodes between them, and the rest.
  const double crossings =
      std::min(std::floor((k - 1.0) / m) + 1.0, static_cast<double>(group.num_nodes()));
  const double within = (crossings - 1.0) * (m - 1.0), rest = k - crossings - within;
  const bool moves = near_latency_s + near_s > far_s;
  const CollectiveSeconds around{
      crossings * far_latency_s + (within + (moves ? rest : 0.0)) * near_latency_s,
      crossings * far_s + within * near_s + rest * (moves ? near_s : far_s), true};
  return around.seconds() > by_link.seconds() ? around : by_link;
}

namespace {

/// Of the figures of the tiers alone.
CollectiveSeconds sum_of_messages(Collective collective, Algorithm algorithm, const Group& group,
                                  double bytes, const Machine& machine, bool shares_memory) {
  if (collective == Collective::all_to_all) return all_to_all(algorithm, group, bytes, machine);
  CollectiveSeconds once;
  switch (algorithm) {
    case Algorithm::ring:
      once = ring_seconds(group, group.size - 1, bytes / static_cast<double>(group.size), machine);
      break;
    case Algorithm::logarithmic: once = logarithmic(group, bytes, machine); break;
    case Algorithm::hierarchical: once = hierarchical(group, bytes, machine, shares_memory); break;
  }
  if (collective == Collective::all_reduce) {  // reduce-scatter, then all-gather
    once.latency_s *= 2.0;
    once.bandwidth_s *= 2.0;
  }
  return once;
}

}  // namespace

double volume_factor(Collective collective, Algorithm algorithm, const Group& group,
                     const Machine& machine) {
  const std::string_view tier = group.num_nodes() > 1 ? "network" : "node";
  const CollectiveTime* largest = nullptr;
  for (const CollectiveTime& each : machine.collectives) {
    if (each.operation != to_string(collective) || each.tier != tier || each.ranks < 2) continue;
    if (largest == nullptr || each.bytes > largest->bytes) largest = &each;
  }
  if (largest == nullptr) return 1.0;
  RunShape shape;
  shape.num_ranks = largest->ranks;
  shape.ranks_per_node = group.num_nodes() > 1 ? machine.ranks_per_node : largest->ranks;
  const CollectiveSeconds alone = sum_of_messages(
      collective, algorithm, group_of(Axis::world, shape), largest->bytes, machine, false);
  const double moving = largest->seconds.value - alone.latency_s;
  return std::clamp(moving / alone.bandwidth_s, 0.1, 10.0);
}

CollectiveSeconds collective_seconds(Collective collective, Algorithm algorithm, const Group& group,
                                     double bytes, const Machine& machine, bool shares_memory) {
  if (group.size == 1 || (shares_memory && group.num_nodes() == 1)) return {};
  return sum_of_messages(collective, algorithm, group,
                         volume_factor(collective, algorithm, group, machine) * bytes, machine,
                         shares_memory);
}

}  // namespace tessera::study
