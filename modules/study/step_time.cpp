// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <tessera/study/step_time.hpp>

#include "step_schedule.hpp"
#include "tessera/study/traffic.hpp"
#include "tessera/study/work.hpp"

namespace tessera::study {
namespace {

/// One rank, and what it started but has not waited for.
class Walk {
 public:
  Walk(const RunShape& shape, const Machine& machine, Algorithm algorithm)
      : shape_(shape), machine_(machine), algorithm_(algorithm) {
    for (const Axis axis : {Axis::world, Axis::expert, Axis::replica}) {
      groups_[static_cast<std::size_t>(axis)] = group_of(axis, shape);
    }
  }

  StepTime walk(const Schedule& schedule) {
    transfers_.resize(schedule.transfers.size());
    for (const Operation& operation : schedule.operations) {
      switch (operation.kind) {
        case Operation::Kind::compute: compute(operation); break;
        case Operation::Kind::start:
          start(operation, schedule.transfers[operation.transfer]);
          break;
        case Operation::Kind::wait: wait(operation); break;
      }
    }
    return time_;
  }

 private:
  struct UnderWay {
    CollectiveSeconds takes;
    double* wire_free_s = nullptr;
    double ready_s = 0.0;  ///< of the part that goes on while kernels run
  };

  /// Of the busiest expert rank.
  double load() const { return shape_.expert > 1 ? shape_.imbalance : 1.0; }

  void compute(const Operation& operation) {
    PhaseSeconds& phase = time_.phases[static_cast<std::size_t>(operation.phase)];
    phase.kernels.product_s += operation.seconds.product_s;
    phase.kernels.attention_s += operation.seconds.attention_s;
    phase.kernels.memory_s += operation.seconds.memory_s;
    const double more = operation.is_of_experts ? load() - 1.0 : 0.0;
    phase.imbalance_s += more * operation.seconds.sum();
    now_s_ += (1.0 + more) * operation.seconds.sum();
  }

  void start(const Operation& operation, const Transfer& transfer) {
    const double more = transfer.collective == Collective::all_to_all ? load() : 1.0;
    UnderWay& under_way = transfers_[operation.transfer];
    const Group& group = groups_[static_cast<std::size_t>(transfer.axis)];
    under_way.takes = collective_seconds(transfer.collective, algorithm_, group,
                                         more * transfer.bytes, machine_, transfer.within_memory);
    const double seconds = under_way.takes.seconds();
    under_way.wire_free_s = group.num_nodes() > 1 ? &network_free_s_ : &node_free_s_;
    double& free_s = *under_way.wire_free_s;
    free_s = std::max(free_s, now_s_) + machine_.overlap * seconds;
    under_way.ready_s = free_s;
    time_.communication_s += seconds;
  }

  void wait(const Operation& operation) {
    const UnderWay& under_way = transfers_[operation.transfer];
    const double seconds = under_way.takes.seconds();
    if (seconds == 0.0) return;
    const double until = std::max(now_s_, under_way.ready_s) + (1.0 - machine_.overlap) * seconds;
    const double waited = until - now_s_;
    PhaseSeconds& phase = time_.phases[static_cast<std::size_t>(operation.phase)];
    phase.latency_s += waited * under_way.takes.latency_s / seconds;
    phase.bandwidth_s += waited * under_way.takes.bandwidth_s / seconds;
    phase.between_nodes |= under_way.takes.between_nodes;
    time_.waited_s += waited;
    now_s_ = until;
    // What could not go on while kernels ran goes on now, before what was started later.
    *under_way.wire_free_s = std::max(*under_way.wire_free_s, now_s_);
  }

  const RunShape& shape_;
  const Machine& machine_;
  Algorithm algorithm_;
  std::array<Group, 3> groups_;
  std::vector<UnderWay> transfers_;
  double now_s_ = 0.0;
  double node_free_s_ = 0.0, network_free_s_ = 0.0;  // transfers of a tier follow one another
  StepTime time_;
};

}  // namespace

std::string PhaseSeconds::bound() const {
  const std::string tier = between_nodes ? "network" : "node";
  const std::pair<double, std::string> parts[] = {
      {kernels.product_s, "product"},     {kernels.attention_s, "attention"},
      {kernels.memory_s, "memory"},       {latency_s, tier + " latency"},
      {bandwidth_s, tier + " bandwidth"}, {imbalance_s, "imbalance"}};
  const auto& most = *std::max_element(std::begin(parts), std::end(parts));
  return most.first > 0.0 ? most.second : "";
}

double StepTime::seconds() const { return sum().sum(); }

PhaseSeconds StepTime::sum() const {
  PhaseSeconds sum;
  for (const PhaseSeconds& phase : phases) {
    sum.kernels.product_s += phase.kernels.product_s;
    sum.kernels.attention_s += phase.kernels.attention_s;
    sum.kernels.memory_s += phase.kernels.memory_s;
    sum.latency_s += phase.latency_s;
    sum.bandwidth_s += phase.bandwidth_s;
    sum.imbalance_s += phase.imbalance_s;
    sum.between_nodes |= phase.between_nodes;
  }
  return sum;
}

StepTime plan_time(const model::ModelConfig& config, const RunShape& shape, const Machine& machine,
                   Algorithm algorithm) {
  return plan_time(config, model::parameter_units(config), shape, machine, algorithm);
}

StepTime plan_time(const model::ModelConfig& config, const std::vector<model::ParameterUnit>& units,
                   const RunShape& shape, const Machine& machine, Algorithm algorithm) {
  require_sensible(config, shape);
  StepTime time =
      Walk(shape, machine, algorithm).walk(make_schedule(config, units, shape, machine));
  const std::int64_t sequences = most_sequences(shape);
  time.flops = step_flops(config, sequences, shape.length);
  time.tokens = sequences * shape.length;
  return time;
}

CheckpointInterval checkpoint_interval(const model::ModelConfig& config, const RunShape& shape,
                                       const Machine& machine, double node_mtbf_s) {
  CheckpointInterval interval;
  const double per_parameter = shape.optimizer == zero3::OptimizerKind::adamw ? 12.0 : 4.0;
  interval.bytes = per_parameter * static_cast<double>(num_parameters(config));
  const std::int64_t ranks_per_node = std::min(shape.ranks_per_node, shape.num_ranks);
  const auto nodes = static_cast<double>((shape.num_ranks + ranks_per_node - 1) / ranks_per_node);
  double rate = nodes * machine.file_write_bytes_per_s.value;
  if (machine.file_system_bytes_per_s)
    rate = std::min(rate, machine.file_system_bytes_per_s->value);
  const double d = interval.save_s = interval.bytes / rate;
  const double m = interval.mtbf_s = node_mtbf_s / nodes;
  interval.young_s = std::sqrt(2.0 * d * m);
  const double x = d / (2.0 * m);
  interval.daly_s = x < 1.0 ? interval.young_s * (1.0 + std::sqrt(x) / 3.0 + x / 9.0) - d : m;
  // Daly's eq. 20 without restarts: a run of exponential failures, each interval done until it is
  // saved.
  const double whole = interval.daly_s + d;
  interval.lost = 1.0 - interval.daly_s / (m * std::expm1(whole / m));
  return interval;
}

}  // namespace tessera::study
