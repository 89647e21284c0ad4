// SPDX-License-Identifier: Apache-2.0
#include "simulated_network.hpp"

#include <algorithm>

#include "ring_time.hpp"

namespace tessera::study {
SimulatedNetwork::SimulatedNetwork(const RunShape& shape, const Machine& machine,
                                   std::int64_t most_ring_steps)
    : shape_(shape),
      machine_(machine),
      ranks_per_node_(std::min(shape.ranks_per_node, shape.num_ranks)),
      most_ring_steps_(most_ring_steps) {
  const std::int64_t num_nodes = node(shape.num_ranks - 1) + 1;
  if (num_nodes > 1) machine.between_nodes();  // refused before the first message
  node_free_s_.resize(static_cast<std::size_t>(num_nodes));
  network_free_s_.resize(static_cast<std::size_t>(num_nodes));
}

std::int64_t SimulatedNetwork::position(std::int64_t rank) const {
  switch (axis_) {
    case Axis::world: return rank;
    case Axis::expert: return rank % shape_.expert;
    case Axis::replica: return rank / shape_.expert;
  }
  return 0;
}

/// Of the rank's group.
std::int64_t SimulatedNetwork::member(std::int64_t rank, std::int64_t position) const {
  switch (axis_) {
    case Axis::world: return position;
    case Axis::expert: return rank - rank % shape_.expert + position;
    case Axis::replica: return rank % shape_.expert + position * shape_.expert;
  }
  return 0;
}

/// All ranks send one message and wait for that which comes to them.
void SimulatedNetwork::step(const Target& target, const Bytes& bytes) {
  std::vector<double>& clocks = *clocks_;
  messages_.clear();
  for (std::int64_t rank = 0; rank < shape_.num_ranks; ++rank) {
    const std::int64_t from = position(rank), to = target(from);
    if (from == to) continue;
    Message message;
    message.from = rank;
    message.to = member(rank, to);
    message.bytes = bytes(from, to);
    message.ready_s = clocks[static_cast<std::size_t>(rank)];
    message.between_nodes = node(rank) != node(message.to);
    const Tier& tier = message.between_nodes ? machine_.between_nodes() : machine_.node;
    message.latency_s = tier.latency_s.value;
    message.sent_s = message.ready_s + message.bytes / tier.bandwidth_bytes_per_s.value;
    messages_.push_back(message);
  }
  serve_nodes();
  next_ = clocks;
  for (const Message& message : messages_) {
    double& sender = next_[static_cast<std::size_t>(message.from)];
    sender = std::max(sender, message.sent_s);
    double& receiver = next_[static_cast<std::size_t>(message.to)];
    receiver = std::max(receiver, message.sent_s + message.latency_s);
  }
  clocks.swap(next_);
  num_messages_ += static_cast<std::int64_t>(messages_.size());
}

/// The messages that leave a node, or stay in it, share its bandwidth in the order in which they
/// are ready.
void SimulatedNetwork::serve_nodes() {
  const bool network = machine_.network && machine_.network->node_bandwidth_bytes_per_s;
  if (!network && !machine_.node.node_bandwidth_bytes_per_s) return;
  auto begin = messages_.begin();
  while (begin != messages_.end()) {  // they are sorted by rank, so by node
    const std::int64_t here = node(begin->from);
    const auto end = std::find_if(
        begin, messages_.end(), [&](const Message& message) { return node(message.from) != here; });
    std::stable_sort(begin, end,
                     [](const Message& a, const Message& b) { return a.ready_s < b.ready_s; });
    for (; begin != end; ++begin) {
      const Tier& tier = begin->between_nodes ? *machine_.network : machine_.node;
      if (!tier.node_bandwidth_bytes_per_s) continue;
      double& free_s =
          (begin->between_nodes ? network_free_s_ : node_free_s_)[static_cast<std::size_t>(here)];
      free_s =
          std::max(free_s, begin->ready_s) + begin->bytes / tier.node_bandwidth_bytes_per_s->value;
      begin->sent_s = std::max(begin->sent_s, free_s);
    }
  }
}

/// Each rank sends to the next, of the group or of its ranks on the node.
void SimulatedNetwork::ring(std::int64_t num_steps, double bytes, bool within_nodes) {
  if (!within_nodes && num_steps > most_ring_steps_) {
    wait_for_all(axis_, *clocks_);
    const double seconds = ring_seconds(group_, num_steps, bytes, machine_).seconds();
    for (double& clock : *clocks_) clock += seconds;
    num_messages_ += num_steps * shape_.num_ranks;
    return;
  }
  const std::int64_t size = within_nodes ? group_.on_node : group_.size;
  const auto next = [&](std::int64_t from) {
    const std::int64_t first = from - from % size;
    return first + (from - first + 1) % size;
  };
  for (std::int64_t i = 0; i < num_steps; ++i) {
    step(next, [&](std::int64_t, std::int64_t) { return bytes; });
  }
}

/// Recursive doubling among ranks `stride` positions apart; Bruck's where they are no power of two.
void SimulatedNetwork::doubling(std::int64_t group_size, std::int64_t stride, double block_bytes,
                                bool halves) {
  std::vector<std::int64_t> distances;
  for (std::int64_t d = 1; d < group_size; d *= 2) distances.push_back(d);
  if (halves) std::reverse(distances.begin(), distances.end());
  for (const std::int64_t distance : distances) {
    const auto blocks = static_cast<double>(std::min(distance, group_size - distance));
    const auto target = [&](std::int64_t from) {
      const std::int64_t mine = from / stride % group_size;
      const std::int64_t other = is_power_of_two(group_size)
                                     ? mine ^ distance
                                     : (mine + group_size - distance) % group_size;
      return from + (other - mine) * stride;
    };
    step(target, [&](std::int64_t, std::int64_t) { return blocks * block_bytes; });
  }
}

/// all_gather; reverse: the same messages backwards, reduce_scatter.
void SimulatedNetwork::gather(Algorithm algorithm, double bytes, bool reverse) {
  const auto size = static_cast<double>(group_.size), on_node = static_cast<double>(group_.on_node);
  switch (algorithm) {
    case Algorithm::ring: return ring(group_.size - 1, bytes / size, false);
    case Algorithm::logarithmic: return doubling(group_.size, 1, bytes / size, reverse);
    case Algorithm::hierarchical: {
      const auto within = [&] {
        if (!shape_.shares_memory) ring(group_.on_node - 1, bytes / on_node, true);
      };
      if (reverse) within();
      doubling(group_.num_nodes(), group_.on_node, bytes / size, reverse);
      if (!reverse) within();
    }
  }
}

void SimulatedNetwork::exchange_within_nodes(const Bytes& bytes) {
  const std::int64_t size = group_.on_node;
  for (std::int64_t shift = 1; shift < size; ++shift) {
    step([&](std::int64_t from) { return from - from % size + (from + shift) % size; }, bytes);
  }
}

void SimulatedNetwork::all_to_all(Algorithm algorithm, double bytes, const Load& load,
                                  bool to_experts) {
  const std::int64_t size = group_.on_node, nodes = group_.num_nodes();
  const auto p = static_cast<double>(group_.size);
  std::vector<double> loads;
  for (std::int64_t i = 0; i < group_.size; ++i) loads.push_back(load(i));
  const auto direct = [&](std::int64_t from, std::int64_t to) {
    return bytes / p * loads[static_cast<std::size_t>(to_experts ? to : from)];
  };
  if (algorithm == Algorithm::logarithmic) {
    for (std::int64_t d = 1; d < group_.size; d *= 2) {
      const bool doubles = is_power_of_two(group_.size);
      step([&](std::int64_t from) { return doubles ? from ^ d : (from + d) % group_.size; },
           [&](std::int64_t, std::int64_t) { return bytes / 2.0; });
    }
    return;
  }
  if (algorithm == Algorithm::ring) {
    exchange_within_nodes(direct);
    for (std::int64_t other = 1; other < nodes; ++other) {
      for (std::int64_t shift = 0; shift < size; ++shift) {
        const auto target = [&](std::int64_t from) {
          return (from / size + other) % nodes * size + (from + shift) % size;
        };
        step(target, direct);
      }
    }
    return;
  }
  // Rows for the same place in any node meet on the sender's node, then cross in one message.
  std::vector<double> place(static_cast<std::size_t>(size), 0.0);
  for (std::int64_t i = 0; i < group_.size; ++i) {
    place[static_cast<std::size_t>(i % size)] += loads[static_cast<std::size_t>(i)];
  }
  const auto within = [&] {
    exchange_within_nodes([&](std::int64_t from, std::int64_t to) {
      return bytes / p * place[static_cast<std::size_t>((to_experts ? to : from) % size)];
    });
  };
  if (to_experts) within();
  for (std::int64_t other = 1; other < nodes; ++other) {
    step([&](std::int64_t from) { return (from + other * size) % group_.size; },
         [&](std::int64_t from, std::int64_t to) {
           return static_cast<double>(size) * direct(from, to);
         });
  }
  if (!to_experts) within();
}

void SimulatedNetwork::run(Axis axis, Collective collective, Algorithm algorithm, double bytes,
                           const Load& load, bool to_experts, std::vector<double>& clocks) {
  axis_ = axis;
  group_ = group_of(axis, shape_);
  clocks_ = &clocks;
  if (group_.size == 1) return;
  bytes *= volume_factor(collective, algorithm, group_, machine_);
  switch (collective) {
    case Collective::all_gather: return gather(algorithm, bytes, false);
    case Collective::reduce_scatter: return gather(algorithm, bytes, true);
    case Collective::all_reduce:
      gather(algorithm, bytes, true);
      return gather(algorithm, bytes, false);
    case Collective::all_to_all: return all_to_all(algorithm, bytes, load, to_experts);
  }
}

void SimulatedNetwork::give_back(double seconds) {
  for (double& free_s : group_.num_nodes() > 1 ? network_free_s_ : node_free_s_) free_s -= seconds;
}

void SimulatedNetwork::wait_for_all(Axis axis, std::vector<double>& clocks) const {
  const std::int64_t expert = shape_.expert, ranks = shape_.num_ranks;
  const std::int64_t num_groups = axis == Axis::world     ? 1
                                  : axis == Axis::replica ? expert
                                                          : ranks / expert;
  std::vector<double> last(static_cast<std::size_t>(num_groups), 0.0);
  const auto group = [&](std::size_t rank) {
    const auto r = static_cast<std::int64_t>(rank);
    return static_cast<std::size_t>(axis == Axis::world     ? 0
                                    : axis == Axis::replica ? r % expert
                                                            : r / expert);
  };
  for (std::size_t rank = 0; rank < clocks.size(); ++rank) {
    last[group(rank)] = std::max(last[group(rank)], clocks[rank]);
  }
  for (std::size_t rank = 0; rank < clocks.size(); ++rank) clocks[rank] = last[group(rank)];
}

}  // namespace tessera::study
