// SPDX-License-Identifier: Apache-2.0
// In the order of modules/model/transformer.cpp: each unit is gathered one ahead of its use, and a
// sum is waited for when the next one sets off.
#include "step_schedule.hpp"

#include "kernel_seconds.hpp"
#include "tessera/study/traffic.hpp"

namespace tessera::study {
namespace {

using Kind = Operation::Kind;
using model::Recompute;

class Builder {
 public:
  Builder(const model::ModelConfig& config, const std::vector<model::ParameterUnit>& units,
          const RunShape& shape, const Machine& machine)
      : config_(config), shape_(shape), kernels_(config, units, shape, machine) {
    for (const model::ParameterUnit& unit : units) add_unit(unit);
  }

  Schedule build() {
    for (std::int64_t pass = 0; pass < num_micro_steps(shape_); ++pass) micro_step();
    compute(StepPhase::optimizer, kernels_.optimizer());
    finish(start(StepPhase::optimizer, {Axis::world, Collective::all_reduce, 8.0}),
           StepPhase::optimizer);  // the gradient's norm
    return std::move(schedule_);
  }

 private:
  /// What is gathered and summed, as bytes of the whole on one rank.
  struct Unit {
    Axis axis = Axis::world;
    double elements = 0.0;
    double gathers = 1.0;  ///< at a time: a head in chunks comes nearly twice
    double sums = 1.0;
    bool exists() const { return elements > 0.0; }
  };
  struct Layer {
    Unit dense, expert;
  };

  void add_unit(const model::ParameterUnit& unit) {
    Unit made{unit.is_expert ? Axis::replica : Axis::world, unit_elements(unit)};
    const UnitPasses passes = passes_of(config_, unit);
    if (unit.is_expert) made.elements /= static_cast<double>(shape_.expert);
    if (unit.name == "embedding") {
      embedding_ = made;
      if (!config_.tied_embeddings) return;
      head_ = made;  // the same matrix: it comes again
      head_.gathers = passes.gathers - 1.0;
      head_.sums = passes.sums - 1.0;
    } else if (unit.name == "head") {
      if (config_.tied_embeddings) return;  // a norm
      head_ = made;
      head_.gathers = passes.gathers;
    } else if (unit.is_expert) {
      layers_.back().expert = made;
    } else {
      layers_.push_back({made, {}});
    }
  }

  void micro_step() {
    const std::size_t embedding = gather(embedding_);
    finish(embedding, StepPhase::gather_wait);
    next_.clear();
    prefetch(layers_.front());
    compute(StepPhase::embed, kernels_.embed());
    for (std::int64_t layer = 0; layer < num_layers(); ++layer) forward(layer);
    const std::vector<std::size_t> head = std::move(next_);
    next_.clear();
    for (const std::size_t each : head) finish(each, StepPhase::gather_wait);
    prefetch(layers_.back());
    compute(StepPhase::head, kernels_.head());
    reduce(head_);
    for (std::int64_t layer = num_layers() - 1; layer >= 0; --layer) backward(layer);
    reduce(embedding_);
    finish_sum();
  }

  void forward(std::int64_t layer) {
    arrive();
    if (layer + 1 < num_layers()) {
      prefetch(layers_[static_cast<std::size_t>(layer) + 1]);
    } else {
      next_.push_back(gather(head_));
    }
    compute(StepPhase::attention_forward, kernels_.attention(layer, false));
    forward_mlp(layer);
  }

  void forward_mlp(std::int64_t layer) {
    const bool has_experts = config_.layer_has_experts[static_cast<std::size_t>(layer)];
    if (has_experts) {
      compute(StepPhase::route_forward, kernels_.route(false));
      exchange(StepPhase::dispatch_forward, layer, true);
      experts(StepPhase::expert_forward, layer, 1.0);
    }
    const std::size_t returning =
        has_experts ? start_exchange(StepPhase::combine_forward, layer, false) : none;
    compute(StepPhase::dense_mlp_forward, kernels_.dense_mlp(layer, false));
    finish(returning, StepPhase::combine_forward);
  }

  void backward(std::int64_t layer) {
    arrive();
    if (layer > 0) prefetch(layers_[static_cast<std::size_t>(layer) - 1]);
    if (shape_.recompute == Recompute::layer) {
      compute(StepPhase::attention_forward, kernels_.attention(layer, false));
      forward_mlp(layer);
    }
    backward_mlp(layer);
    reduce(layers_[static_cast<std::size_t>(layer)].expert);
    if (shape_.recompute == Recompute::attention) {
      compute(StepPhase::attention_forward, kernels_.attention(layer, false));
    }
    compute(StepPhase::attention_backward, kernels_.attention(layer, true));
    reduce(layers_[static_cast<std::size_t>(layer)].dense);
  }

  void backward_mlp(std::int64_t layer) {
    if (!config_.layer_has_experts[static_cast<std::size_t>(layer)]) {
      return compute(StepPhase::dense_mlp_backward, kernels_.dense_mlp(layer, true));
    }
    const std::size_t arriving = start_exchange(StepPhase::combine_backward, layer, true);
    compute(StepPhase::route_backward, kernels_.route(true));
    compute(StepPhase::dense_mlp_backward, kernels_.dense_mlp(layer, true));
    finish(arriving, StepPhase::combine_backward);
    // Two of the three products' gradients first; rows travel behind that of gate and up.
    experts(StepPhase::expert_backward, layer, 2.0 / 3.0);
    const std::size_t returning = start_exchange(StepPhase::dispatch_backward, layer, false);
    experts(StepPhase::expert_backward, layer, 1.0 / 3.0);
    finish(returning, StepPhase::dispatch_backward);
  }

  void compute(StepPhase phase, const KernelSeconds& seconds) {
    if (seconds.sum() == 0.0) return;
    Operation operation;
    operation.phase = phase;
    operation.seconds = seconds;
    schedule_.operations.push_back(operation);
  }
  void experts(StepPhase phase, std::int64_t layer, double share) {
    compute(phase, kernels_.experts(phase == StepPhase::expert_backward, share));
    schedule_.operations.back().is_of_experts = true;
    schedule_.operations.back().layer = layer;
  }

  std::size_t start(StepPhase phase, const Transfer& transfer, std::int64_t layer = -1) {
    Operation operation;
    operation.kind = Kind::start;
    operation.phase = phase;
    operation.layer = layer;
    operation.transfer = schedule_.transfers.size();
    schedule_.transfers.push_back(transfer);
    schedule_.operations.push_back(operation);
    return operation.transfer;
  }
  void finish(std::size_t transfer, StepPhase phase) {
    if (transfer == none) return;
    Operation operation;
    operation.kind = Kind::wait;
    operation.phase = phase;
    operation.transfer = transfer;
    schedule_.operations.push_back(operation);
  }

  std::size_t gather(const Unit& unit) {
    if (!unit.exists()) return none;
    compute(StepPhase::gather, kernels_.gather(unit.axis, unit.elements * unit.gathers));
    return start(StepPhase::gather_wait,
                 {unit.axis, Collective::all_gather,
                  unit.elements * unit.gathers * static_cast<double>(element_bytes(shape_)), false,
                  shape_.shares_memory});
  }
  void prefetch(const Layer& layer) {
    next_.push_back(gather(layer.expert));
    next_.push_back(gather(layer.dense));
  }
  void arrive() {
    for (const std::size_t each : next_) finish(each, StepPhase::gather_wait);
    next_.clear();
  }
  void reduce(const Unit& unit) {
    if (!unit.exists() || unit.sums == 0.0) return;
    finish_sum();
    compute(StepPhase::reduce_scatter, kernels_.reduce(unit.axis, unit.elements * unit.sums));
    sum_ = start(StepPhase::reduce_scatter_wait,
                 {unit.axis, Collective::reduce_scatter,
                  unit.elements * unit.sums * static_cast<double>(gradient_bytes(shape_)), false,
                  shape_.shares_memory});
  }
  void finish_sum() {
    finish(sum_, StepPhase::reduce_scatter_wait);
    sum_ = none;
  }

  std::size_t start_exchange(StepPhase phase, std::int64_t layer, bool to_experts) {
    compute(phase, kernels_.rows(phase));
    return start(phase,
                 {Axis::expert, Collective::all_to_all, kernels_.exchanged_bytes(), to_experts,
                  shape_.shares_memory},
                 layer);
  }
  void exchange(StepPhase phase, std::int64_t layer, bool to_experts) {
    finish(start_exchange(phase, layer, to_experts), phase);
  }
  std::int64_t num_layers() const { return config_.num_layers; }

  static constexpr std::size_t none = static_cast<std::size_t>(-1);
  const model::ModelConfig& config_;
  const RunShape& shape_;
  StepKernels kernels_;
  Unit embedding_, head_;
  std::vector<Layer> layers_;
  std::vector<std::size_t> next_;  // gathers under way
  std::size_t sum_ = none;         // the reduction under way
  Schedule schedule_;
};

}  // namespace

Schedule make_schedule(const model::ModelConfig& config,
                       const std::vector<model::ParameterUnit>& units, const RunShape& shape,
                       const Machine& machine) {
  return Builder(config, units, shape, machine).build();
}

}  // namespace tessera::study
