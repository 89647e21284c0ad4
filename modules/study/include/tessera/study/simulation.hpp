// SPDX-License-Identifier: Apache-2.0
// One step on many ranks, event by event: what differs between ranks (load of their experts, late
// or slow ranks, their place on nodes) and what that does to the others. Without any of it the step
// takes what plan_time() says.
#pragma once

#include <array>
#include <vector>

#include "tessera/study/routing.hpp"
#include "tessera/study/step_time.hpp"

namespace tessera::study {

struct Straggler {
  std::int64_t rank = 0;
  double delay_s = 0.0;   ///< before its step
  double slowdown = 1.0;  ///< of its kernels
};

struct SimulationOptions {
  Algorithm algorithm = Algorithm::hierarchical;
  std::vector<Straggler> stragglers;
};

struct SimulatedStep {
  double seconds = 0.0;                          ///< until the last rank is through
  double first_done_s = 0.0;                     ///< until the first is
  std::array<double, num_step_phases> phases{};  ///< mean over ranks, waits included [s]
  std::int64_t num_messages = 0;
};

/// shape.imbalance does not count: `routing` says it. Throws Error::usage where the numbers do not
/// fit, the machine file lacks something, or a straggler is no rank. local.
SimulatedStep simulate_step(const model::ModelConfig& config, const RunShape& shape,
                            const Machine& machine, const Routing& routing,
                            const SimulationOptions& options = {});

}  // namespace tessera::study
