// SPDX-License-Identifier: Apache-2.0
// Messages between ranks that have clocks of their own: each takes its tier's latency and its
// bytes' time on the sender's link and, where the tier has a limit per node, on the node's, which
// serves the messages of its ranks one after the other.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "tessera/study/collective_time.hpp"

namespace tessera::study {

class SimulatedNetwork {
 public:
  /// Rings of more steps than `most_ring_steps` go in one piece: a late rank's block reaches all
  /// others, so that none is through before ring_seconds() after the last has begun.
  SimulatedNetwork(const RunShape& shape, const Machine& machine,
                   std::int64_t most_ring_steps = 64);

  /// Share of the axis' rows that the expert rank with that position has, times the axis' size.
  using Load = std::function<double(std::int64_t position)>;

  /// One collective in all groups of an axis. `clocks` [ranks]: when each rank starts; on return,
  /// when it is through. `bytes` as in collective_seconds(). `load`: of all_to_all; to_experts:
  /// rows go to the ranks with that load, else they come from there.
  void run(Axis axis, Collective collective, Algorithm algorithm, double bytes, const Load& load,
           bool to_experts, std::vector<double>& clocks);
  /// Of the last collective so much goes on only when it is waited for: until then the links of its
  /// tier are free for what starts next.
  void give_back(double seconds);
  /// All ranks of each group wait for its last: memory that they share needs no messages.
  void wait_for_all(Axis axis, std::vector<double>& clocks) const;

  std::int64_t num_messages() const { return num_messages_; }

 private:
  /// Position of the rank to which a position of the group sends in this step; itself: nothing.
  using Target = std::function<std::int64_t(std::int64_t position)>;
  using Bytes = std::function<double(std::int64_t from, std::int64_t to)>;

  void step(const Target& target, const Bytes& bytes);
  void serve_nodes();
  void ring(std::int64_t num_steps, double bytes, bool within_nodes);
  void doubling(std::int64_t group_size, std::int64_t stride, double block_bytes, bool halves);
  void gather(Algorithm algorithm, double bytes, bool reverse);
  void all_to_all(Algorithm algorithm, double bytes, const Load& load, bool to_experts);
  void exchange_within_nodes(const Bytes& bytes);
  std::int64_t member(std::int64_t rank, std::int64_t position) const;
  std::int64_t position(std::int64_t rank) const;
  std::int64_t node(std::int64_t rank) const { return rank / ranks_per_node_; }

  struct Message {
    std::int64_t from = 0, to = 0;
    double bytes = 0.0, ready_s = 0.0, sent_s = 0.0, latency_s = 0.0;
    bool between_nodes = false;
  };

  const RunShape& shape_;
  const Machine& machine_;
  std::int64_t ranks_per_node_, most_ring_steps_;
  Axis axis_ = Axis::world;
  Group group_;
  std::vector<double>* clocks_ = nullptr;
  std::vector<Message> messages_;  // of the step
  std::vector<double> next_;
  std::vector<double> node_free_s_, network_free_s_;  // [nodes]
  std::int64_t num_messages_ = 0;
};

}  // namespace tessera::study
