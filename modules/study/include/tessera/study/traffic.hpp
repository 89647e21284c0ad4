// SPDX-License-Identifier: Apache-2.0
// What a step brings to one rank, counted from the shapes: logically, wherever the others are.
#pragma once

#include "tessera/model/parameter_units.hpp"
#include "tessera/study/run_shape.hpp"

namespace tessera::study {

/// Through one communicator [bytes].
struct AxisTraffic {
  double all_gather = 0.0;
  double reduce_scatter = 0.0;
  double all_to_all = 0.0;
  double sum() const { return all_gather + reduce_scatter + all_to_all; }
};

/// Of the rank with the most sequences. The formulas, with W ranks of which E exchange rows and
/// R = W/E hold the same experts, b bytes per element: dense units b_w n (W-1)/W per gather and
/// b_g n (W-1)/W per sum, the experts' n/E likewise over R, rows 4 T K H b (E-1)/E (two more
/// exchanges when layers are computed again). tests/study/traffic.test.cpp counts them.
struct PlannedTraffic {
  AxisTraffic world;    ///< dense units
  AxisTraffic expert;   ///< rows of tokens, balanced
  AxisTraffic replica;  ///< the experts' units
  double sum() const { return world.sum() + expert.sum() + replica.sum(); }
};
/// `units`: model::parameter_units(config). local.
PlannedTraffic planned_traffic(const model::ModelConfig& config,
                               const std::vector<model::ParameterUnit>& units,
                               const RunShape& shape);

/// How often a micro-step gathers and sums a unit of parameter_units(): layers are gathered for
/// forward and backward, an embedding that is tied to the head for both, and a head in chunks
/// computes its logits twice. local.
struct UnitPasses {
  double gathers = 1.0;
  double sums = 1.0;
};
UnitPasses passes_of(const model::ModelConfig& config, const model::ParameterUnit& unit);

/// Elements of a unit, all experts. local.
double unit_elements(const model::ParameterUnit& unit);
/// Sequences of the rank that has most. local.
std::int64_t most_sequences(const RunShape& shape);
/// Times that a step passes through the model. local.
std::int64_t num_micro_steps(const RunShape& shape);
/// Exchanges of rows of a layer with experts in a micro-step. local.
std::int64_t num_exchanges(const RunShape& shape);
std::int64_t element_bytes(const RunShape& shape);   ///< of arithmetic and gathered weights
std::int64_t gradient_bytes(const RunShape& shape);  ///< of gradients that travel

}  // namespace tessera::study
