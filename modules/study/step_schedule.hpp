// SPDX-License-Identifier: Apache-2.0
// A training step as a list of what each rank does in its order: kernels with their times on a
// machine, communication that is started and waited for. One list, two readers: step_time.cpp walks
// through it with one clock and closed forms, simulation.cpp with a clock per rank and messages.
#pragma once

#include <vector>

#include "tessera/model/parameter_units.hpp"
#include "tessera/study/collective_time.hpp"
#include "tessera/study/step_time.hpp"

namespace tessera::study {

/// A collective of all groups of an axis.
struct Transfer {
  Axis axis = Axis::world;
  Collective collective = Collective::all_gather;
  double bytes = 0.0;          ///< as in collective_seconds()
  bool to_experts = false;     ///< all_to_all: the busiest expert's rank receives most, or sends
  bool within_memory = false;  ///< ranks that share memory need no messages
};

struct Operation {
  enum class Kind { compute, start, wait };
  Kind kind = Kind::compute;
  StepPhase phase = StepPhase::other;
  /// compute: of a rank with the mean load of experts.
  KernelSeconds seconds;
  /// compute: grows with the rows of the rank's experts.
  bool is_of_experts = false;
  std::int64_t layer = -1;  ///< whose routing counts
  /// start: begins after all that were started before; wait: until it is complete.
  std::size_t transfer = 0;
};

struct Schedule {
  std::vector<Operation> operations;
  std::vector<Transfer> transfers;
};

/// Of the ranks with the most sequences. `units`: model::parameter_units(config). Throws
/// Error::usage where the machine lacks what the step needs. local.
Schedule make_schedule(const model::ModelConfig& config,
                       const std::vector<model::ParameterUnit>& units, const RunShape& shape,
                       const Machine& machine);

}  // namespace tessera::study
