// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>
#include <tessera/study/simulation.hpp>

#include "base/error.hpp"
#include "simulated_network.hpp"
#include "step_schedule.hpp"

namespace tessera::study {
namespace {

class Simulation {
 public:
  Simulation(const RunShape& shape, const Machine& machine, const Routing& routing,
             const SimulationOptions& options)
      : shape_(shape),
        machine_(machine),
        routing_(routing),
        algorithm_(options.algorithm),
        network_(shape, machine),
        now_(static_cast<std::size_t>(shape.num_ranks), 0.0),
        node_wire_(now_),
        network_wire_(now_),
        slowdown_(now_.size(), 1.0) {
    for (const Straggler& straggler : options.stragglers) {
      if (straggler.rank < 0 || straggler.rank >= shape.num_ranks) {
        fail(ErrorKind::usage, "rank {} cannot be late: there are {}", straggler.rank,
             shape.num_ranks);
      }
      now_[static_cast<std::size_t>(straggler.rank)] = straggler.delay_s;
      slowdown_[static_cast<std::size_t>(straggler.rank)] = straggler.slowdown;
    }
  }

  SimulatedStep run(const Schedule& schedule) {
    under_way_.resize(schedule.transfers.size());
    for (const Operation& operation : schedule.operations) {
      const double before = std::accumulate(now_.begin(), now_.end(), 0.0);
      switch (operation.kind) {
        case Operation::Kind::compute: compute(operation); break;
        case Operation::Kind::start:
          start(operation, schedule.transfers[operation.transfer]);
          break;
        case Operation::Kind::wait: wait(operation.transfer); break;
      }
      const double after = std::accumulate(now_.begin(), now_.end(), 0.0);
      step_.phases[static_cast<std::size_t>(operation.phase)] +=
          (after - before) / static_cast<double>(now_.size());
    }
    step_.seconds = *std::max_element(now_.begin(), now_.end());
    step_.first_done_s = *std::min_element(now_.begin(), now_.end());
    step_.num_messages = network_.num_messages();
    return step_;
  }

 private:
  struct UnderWay {
    std::vector<double> ready_s;  // of the part that goes on while kernels run
    double rest_s = 0.0;          // of the other
    std::vector<double>* wire = nullptr;
  };

  void compute(const Operation& operation) {
    const double seconds = operation.seconds.sum();
    std::vector<double> load(static_cast<std::size_t>(shape_.expert), 1.0);
    if (operation.is_of_experts) {
      for (std::int64_t i = 0; i < shape_.expert; ++i) {
        load[static_cast<std::size_t>(i)] = routing_.rank_load(operation.layer, i, shape_.expert);
      }
    }
    for (std::size_t rank = 0; rank < now_.size(); ++rank) {
      now_[rank] += seconds * slowdown_[rank] * load[rank % load.size()];
    }
  }

  void start(const Operation& operation, const Transfer& transfer) {
    UnderWay& under_way = under_way_[operation.transfer];
    const Group group = group_of(transfer.axis, shape_);
    const double alone = collective_seconds(transfer.collective, algorithm_, group, transfer.bytes,
                                            machine_, transfer.within_memory)
                             .seconds();
    under_way.rest_s = (1.0 - machine_.overlap) * alone;
    under_way.ready_s = now_;
    if (alone == 0.0) {  // nobody to talk to, or neighbours in memory
      if (group.size > 1) network_.wait_for_all(transfer.axis, under_way.ready_s);
      return;
    }
    under_way.wire = group.num_nodes() > 1 ? &network_wire_ : &node_wire_;
    for (std::size_t rank = 0; rank < now_.size(); ++rank) {
      under_way.ready_s[rank] = std::max(now_[rank], (*under_way.wire)[rank]);
    }
    network_.run(
        transfer.axis, transfer.collective, algorithm_, transfer.bytes,
        [&](std::int64_t position) {
          return routing_.rank_load(operation.layer, position, shape_.expert);
        },
        transfer.to_experts, under_way.ready_s);
    for (double& ready : under_way.ready_s) ready -= under_way.rest_s;
    network_.give_back(under_way.rest_s);
    *under_way.wire = under_way.ready_s;
  }

  void wait(std::size_t transfer) {
    UnderWay under_way = std::move(under_way_[transfer]);
    for (std::size_t rank = 0; rank < now_.size(); ++rank) {
      now_[rank] = std::max(now_[rank], under_way.ready_s[rank]) + under_way.rest_s;
      if (under_way.rest_s == 0.0) continue;
      double& free_s = (*under_way.wire)[rank];
      free_s = std::max(free_s, now_[rank]);
    }
  }

  const RunShape& shape_;
  const Machine& machine_;
  const Routing& routing_;
  Algorithm algorithm_;
  SimulatedNetwork network_;
  std::vector<double> now_, node_wire_, network_wire_, slowdown_;  // [ranks]
  std::vector<UnderWay> under_way_;
  SimulatedStep step_;
};

}  // namespace

SimulatedStep simulate_step(const model::ModelConfig& config, const RunShape& shape,
                            const Machine& machine, const Routing& routing,
                            const SimulationOptions& options) {
  require_sensible(config, shape);
  const std::vector<model::ParameterUnit> units = model::parameter_units(config);
  return Simulation(shape, machine, routing, options)
      .run(make_schedule(config, units, shape, machine));
}

}  // namespace tessera::study
