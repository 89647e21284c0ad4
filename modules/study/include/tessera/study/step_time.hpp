// SPDX-License-Identifier: Apache-2.0
// How long a training step takes on a machine, by phase, and what binds each.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "tessera/model/parameter_units.hpp"
#include "tessera/study/collective_time.hpp"
#include "tessera/study/machine.hpp"
#include "tessera/study/run_shape.hpp"

namespace tessera::study {

/// A kernel's time, by what it is spent on.
struct KernelSeconds {
  double product_s = 0.0;
  double attention_s = 0.0;
  double memory_s = 0.0;
  double sum() const { return product_s + attention_s + memory_s; }
};

/// What a phase spends its time on.
struct PhaseSeconds {
  KernelSeconds kernels;
  double latency_s = 0.0;    ///< of messages that are waited for
  double bandwidth_s = 0.0;  ///< likewise
  bool between_nodes = false;
  double imbalance_s = 0.0;  ///< more rows than the mean

  double sum() const { return kernels.sum() + latency_s + bandwidth_s + imbalance_s; }
  /// "product", "attention", "memory", "node latency", "node bandwidth", "network latency",
  /// "network bandwidth", "imbalance"; "" for none. local.
  std::string bound() const;
};

struct StepTime {
  std::array<PhaseSeconds, num_step_phases> phases{};
  double communication_s = 0.0;  ///< of all transfers, hidden or not
  double waited_s = 0.0;         ///< of them, not hidden behind kernels
  double flops = 0.0;            ///< of a rank: products of forward and backward, nothing twice
  std::int64_t tokens = 0;       ///< of a rank

  const PhaseSeconds& of(StepPhase phase) const { return phases[static_cast<std::size_t>(phase)]; }
  double seconds() const;
  /// The sum over phases, as what the whole step is bound by.
  PhaseSeconds sum() const;
};

/// Of the rank with the most sequences and the busiest experts (shape.imbalance). Groups start
/// their collectives together. Throws Error::usage where the machine file lacks what is needed.
/// local.
StepTime plan_time(const model::ModelConfig& config, const RunShape& shape, const Machine& machine,
                   Algorithm algorithm);
/// The same with model::parameter_units(config), which many plans share.
StepTime plan_time(const model::ModelConfig& config, const std::vector<model::ParameterUnit>& units,
                   const RunShape& shape, const Machine& machine, Algorithm algorithm);

/// How often to save. Young, CACM 17(9), 1974: sqrt(2 d M); Daly, FGCS 22(3), 2006, eq. 37: with
/// the higher terms that matter when saves are not short against the time between failures.
struct CheckpointInterval {
  double bytes = 0.0;   ///< f32 weights and the optimizer's moments
  double save_s = 0.0;  ///< d
  double mtbf_s = 0.0;  ///< M, of all nodes together
  double young_s = 0.0;
  double daly_s = 0.0;
  double lost = 0.0;  ///< share of the time for saves and for steps done again, at Daly's interval
};
/// `node_mtbf_s`: mean time between failures of one node. local.
CheckpointInterval checkpoint_interval(const model::ModelConfig& config, const RunShape& shape,
                                       const Machine& machine, double node_mtbf_s);

}  // namespace tessera::study
