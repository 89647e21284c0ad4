// SPDX-License-Identifier: Apache-2.0
// What a machine reaches: the file that `tessera calibrate` writes and that plans and simulations
// read. modules/study/MACHINE.md is its contract.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "base/phase_timer.hpp"

namespace tessera::study {

/// A number with where it comes from.
struct Figure {
  double value = 0.0;
  double low = 0.0;  ///< 95 % confidence interval; both are `value` where none is known
  double high = 0.0;
  std::string source;  ///< of a published number; empty: measured

  /// Median and its interval by order statistics (the binomial of the ranks). @pre not empty.
  /// local.
  static Figure median_of(std::vector<double> samples);
  static Figure published(double value, std::string source) {
    return {value, value, value, std::move(source)};
  }
};

/// Ranks of one node, or of different nodes.
struct Tier {
  Figure latency_s;              ///< of a short message between two ranks
  Figure bandwidth_bytes_per_s;  ///< of one rank's long messages, in one direction
  /// Of all ranks of a node together; none: they do not disturb each other.
  std::optional<Figure> node_bandwidth_bytes_per_s;

  /// Of one rank, while `num_ranks` of its node send [bytes/s]. local.
  double bandwidth(double num_ranks = 1.0) const;
};

/// A rate of forward and of backward (which has twice the work) as it depends on a size.
struct RateAt {
  Dtype dtype = Dtype::f32;
  double size = 0.0;  ///< rows of a product; keys that a query sees
  Figure forward_flop_per_s;
  Figure backward_flop_per_s;
};

/// A collective of a tier's ranks, as measured.
struct CollectiveTime {
  std::string operation;  ///< all_gather, reduce_scatter, all_reduce, all_to_all
  std::string tier;       ///< node, network
  std::int64_t ranks = 0;
  double bytes = 0.0;  ///< of the whole result (of what one rank sends in all_to_all)
  Figure seconds;
};

struct Machine {
  std::string name;
  std::string description;
  std::int64_t ranks_per_node = 1;
  bool shares_memory = false;  ///< ranks of a node work in each other's memory
  /// Share of a collective's time that passes while kernels run, from 0 to 1.
  double overlap = 0.0;
  std::optional<Figure> memory_bytes;  ///< of a rank
  std::optional<Figure> node_mtbf_s;   ///< mean time between failures of one node

  Tier node;
  std::optional<Tier> network;  ///< none: one node is all that is known

  Figure triad_bytes_per_s;                       ///< of a rank while all ranks of its node run
  std::vector<RateAt> products;                   ///< ascending by size within a type
  std::vector<RateAt> attention;                  ///< likewise
  Figure file_write_bytes_per_s;                  ///< of a node
  Figure file_read_bytes_per_s;                   ///< of a node
  std::optional<Figure> file_system_bytes_per_s;  ///< writes of all nodes together
  std::vector<CollectiveTime> collectives;
  /// Measured time of a phase over the model's, for what the figures above do not know.
  std::map<StepPhase, Figure> factors;

  /// Between the sizes of the table on straight lines of logarithms, at its ends constant.
  /// Throws Error::usage if the table has no such type. local.
  double product_rate(Dtype dtype, double rows, bool backward) const;
  double attention_rate(Dtype dtype, double keys, bool backward) const;
  double factor(StepPhase phase) const;
  /// The tier between nodes. Throws Error::usage where the file has none. local.
  const Tier& between_nodes() const;
};

/// `origin` names the file in messages. Throws Error::format naming the key that is absent, unknown
/// or impossible. local.
Machine parse_machine(const std::string& json_text, const std::string& origin);
/// The file, which parse_machine() reads back alike. local.
std::string to_json(const Machine& machine);
/// Throws Error::file, Error::format. local.
Machine read_machine(const std::string& path);

}  // namespace tessera::study
