// SPDX-License-Identifier: Apache-2.0
// What a collective takes on a machine of two tiers, in closed form: latency and bandwidth of its
// messages, all ranks starting at once. The event simulation sends the same messages one by one
// (simulated_network.hpp); tests hold the two together.
#pragma once

#include <string_view>

#include "tessera/study/machine.hpp"
#include "tessera/study/run_shape.hpp"

namespace tessera::study {

/// Communicators of comm::ProcessGrid.
enum class Axis { world, expert, replica };
enum class Collective { all_gather, reduce_scatter, all_reduce, all_to_all };
/// ring: one message per rank and step to the next rank (all_to_all: to each other rank in turn).
/// logarithmic: recursive doubling, Bruck's for other numbers of ranks than powers of two (Thakur,
/// Rabenseifner, Gropp, IJHPCA 19(1), 2005). hierarchical: ring within a node, logarithmic between
/// ranks with the same place in their nodes (all_to_all: first within the node, then one message
/// per node), so that the network carries each byte once per node.
enum class Algorithm { ring, logarithmic, hierarchical };

std::string_view to_string(Axis axis);
std::string_view to_string(Collective collective);
std::string_view to_string(Algorithm algorithm);
/// Throws Error::usage for any other name. local.
Algorithm parse_algorithm(std::string_view name);

/// How the ranks of a communicator lie on nodes.
struct Group {
  std::int64_t size = 1;
  std::int64_t on_node = 1;  ///< of its ranks per node
  std::int64_t stride = 1;   ///< between neighbours, in world ranks
  double sharing = 1.0;      ///< groups of the same axis on a node: all of them send at once

  std::int64_t num_nodes() const { return (size + on_node - 1) / on_node; }
};
/// local.
Group group_of(Axis axis, const RunShape& shape);

struct CollectiveSeconds {
  double latency_s = 0.0;
  double bandwidth_s = 0.0;
  bool between_nodes = false;  ///< most of it
  double seconds() const { return latency_s + bandwidth_s; }
};

/// `bytes`: of the whole result (all_gather), of one rank's contribution (the others). A group of
/// one takes nothing; one whose ranks share memory neither: that work is counted as memory traffic.
/// What a calibration has measured of the collective counts (volume_factor).
/// Throws Error::usage where the machine lacks a tier. local.
CollectiveSeconds collective_seconds(Collective collective, Algorithm algorithm, const Group& group,
                                     double bytes, const Machine& machine, bool shares_memory);

/// Time per byte of the largest measured collective of this kind over that of the sum of messages:
/// MPI's all-gather may use a link twice as well as its all-to-all. 1 where none was measured, as
/// in files of published figures. local.
double volume_factor(Collective collective, Algorithm algorithm, const Group& group,
                     const Machine& machine);

/// Whether recursive doubling pairs all ranks; else Bruck's. local.
bool is_power_of_two(std::int64_t num_ranks);
/// Whether messages over a distance of `distance` ranks of the group stay within nodes: of all
/// ranks (recursive doubling over powers of two), or of none. local.
bool stays_on_node(const Group& group, std::int64_t distance);

}  // namespace tessera::study
