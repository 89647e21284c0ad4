// SPDX-License-Identifier: Apache-2.0
// What the kernels of a step take on one rank, from their counted work and the machine's rates.
#pragma once

#include "tessera/study/step_time.hpp"

namespace tessera::study {

/// Of one micro-step of the rank with the most sequences, experts loaded alike. A rank's group that
/// lies on one node with shared memory gathers by memory alone. All local.
class StepKernels {
 public:
  StepKernels(const model::ModelConfig& config, const std::vector<model::ParameterUnit>& units,
              const RunShape& shape, const Machine& machine);

  KernelSeconds embed() const;
  KernelSeconds attention(std::int64_t layer, bool backward) const;
  KernelSeconds route(bool backward) const;
  /// Of a layer's experts here; `share` of its work.
  KernelSeconds experts(bool backward, double share) const;
  /// A dense layer's, or a layer's shared experts.
  KernelSeconds dense_mlp(std::int64_t layer, bool backward) const;
  KernelSeconds head() const;
  KernelSeconds optimizer() const;
  /// Rows packed and unpacked on their way to experts and back.
  KernelSeconds rows(StepPhase phase) const;
  /// `elements`: of the whole unit.
  KernelSeconds gather(Axis axis, double elements) const;
  KernelSeconds reduce(Axis axis, double elements) const;

  /// That one rank sends in an exchange of rows, to itself included.
  double exchanged_bytes() const;

 private:
  struct Layer {
    double attention_elements = 0.0;  ///< of its projections
    double mlp_elements = 0.0;        ///< of its dense MLP or shared experts
  };
  /// Products of `flops` with `num_rows` rows and memory traffic, times the phase's factor.
  KernelSeconds timed(StepPhase phase, Dtype dtype, double flops, double num_rows, bool backward,
                      double memory_bytes) const;
  bool lies_on_node(Axis axis) const;

  const model::ModelConfig& config_;
  const RunShape& shape_;
  const Machine& machine_;
  std::vector<Layer> layers_;
  std::int64_t sequences_ = 0;  ///< of a micro-step
  double tokens_ = 0.0;
  double num_parameters_ = 0.0;  ///< of the model
};

}  // namespace tessera::study
