// SPDX-License-Identifier: Apache-2.0
// What the kernels of a step have to do at least, counted from shapes alone: multiplications and
// additions of the products, each array moved once. Benchmarks hold times against it, plans make
// times of it.
#pragma once

#include <string_view>

#include "base/phase_timer.hpp"
#include "tessera/model/parameter_units.hpp"

namespace tessera::study {

/// Of one rank.
struct Work {
  double flops = 0.0;
  double memory_bytes = 0.0;
  double message_bytes = 0.0;

  Work& operator+=(const Work& other);
};

// The work of one rank in one call. `tokens`: of this rank. All local.

/// The MLPs of `local_experts` experts on `rows` rows.
Work expert_work(const model::ModelConfig& config, double rows, double local_experts,
                 std::int64_t element_bytes, bool backward);
/// Scores and values; no projections.
Work attention_work(const model::ModelConfig& config, std::int64_t sequences, std::int64_t length,
                    std::int64_t window, std::int64_t element_bytes, bool backward);
/// Keys that a query sees, the mean over a sequence.
double mean_visible_keys(std::int64_t length, std::int64_t window);
Work head_work(const model::ModelConfig& config, std::int64_t tokens, std::int64_t element_bytes);
/// `num_copied`: parameters that are also written in bf16.
Work adamw_work(std::int64_t num_parameters, std::int64_t num_copied);
/// Elements of the projections of a unit, experts aside, whose names contain `part`.
double projection_elements(const model::ParameterUnit& unit, std::string_view part);
/// Products with the projections of all layers, experts aside, whose names contain `part`; forward.
double projection_flops(const model::ModelConfig& config, std::int64_t tokens,
                        std::string_view part);
/// All products of forward and backward.
double step_flops(const model::ModelConfig& config, std::int64_t sequences, std::int64_t length);

/// Tokens to the ranks of their experts, or outputs back to their tokens.
Work dispatch_work(const model::ModelConfig& config, std::int64_t tokens, std::int64_t expert_ranks,
                   std::int64_t element_bytes, StepPhase phase);
/// One unit of `whole` elements over `num_ranks`. Ranks that share memory gather nothing, and their
/// sums need no messages.
Work gather_work(double whole, std::int64_t num_ranks, std::int64_t element_bytes,
                 bool shares_memory);
Work reduce_work(double whole, std::int64_t num_ranks, bool shares_memory);

}  // namespace tessera::study
