// SPDX-License-Identifier: Apache-2.0
// One optimizer step, the whole flow on one page: count targets, forward and backward of each
// micro-step, gradient norm, clip, update.
#pragma once

#include <span>
#include <vector>

#include "comm/process_grid.hpp"
#include "tessera/model/batch.hpp"
#include "tessera/model/transformer.hpp"
#include "tessera/zero3/optimizer.hpp"
#include "tessera/zero3/parameter_store.hpp"

namespace tessera::trainer {

struct StepOptions {
  double learning_rate = 1e-3;
  double max_grad_norm = 0.0;       ///< clip to this norm; 0: no clipping
  double aux_coefficient = 0.0;     ///< of the load-balancing loss
  std::int64_t optimizer_step = 1;  ///< counted from 1, for Adam's bias corrections
};

struct StepOutcome {
  double loss = 0.0;       ///< mean cross-entropy over all ranks' targets, plus the auxiliary term
  double aux_loss = 0.0;   ///< load-balancing loss before its coefficient
  double grad_norm = 0.0;  ///< over all parameters, before clipping
  std::int64_t num_targets = 0;  ///< over all ranks and micro-steps
  double expert_load = 1.0;      ///< tokens of the busiest expert / mean, of all layers the worst
  std::vector<std::int64_t> expert_choices;  ///< [layers with experts, E] over all ranks
  bool updated = false;  ///< false: no target, a NaN, or a rank that failed; nothing was changed
};

/// Throws Error::usage for a coefficient other than 0 where the family has no load-balancing loss.
/// local, alike on all ranks.
void require_aux_loss(const model::ModelConfig& config, double aux_coefficient);

/// Loss and gradient of all micro-steps; leaves the gradient in the store. Fills loss, aux_loss,
/// num_targets, expert_load. collective over grid.world(): all ranks pass the same number of
/// batches, of the same length; a batch may be empty.
template <class T>
StepOutcome compute_gradient(const comm::ProcessGrid& grid, model::Transformer<T>& model,
                             zero3::ParameterStore<T>& store, std::span<const model::Batch> batches,
                             double aux_coefficient);

/// compute_gradient, then one optimizer step on every shard. With `local_failure` this rank had to
/// pass neutral (empty) batches: all ranks drop the step together, as they do when the gradient is
/// not finite. collective over grid.world().
template <class T>
StepOutcome train_step(const comm::ProcessGrid& grid, model::Transformer<T>& model,
                       zero3::ParameterStore<T>& store, std::span<const model::Batch> batches,
                       const zero3::OptimizerOptions& optimizer, const StepOptions& options,
                       bool local_failure = false);

/// Loss of batches without gradient.
struct Evaluation {
  double loss_sum = 0.0;         ///< cross-entropy over all ranks' targets
  std::int64_t num_targets = 0;  ///< over all ranks
};
/// collective over grid.world().
template <class T>
Evaluation evaluate(const comm::ProcessGrid& grid, model::Transformer<T>& model,
                    std::span<const model::Batch> batches);

}  // namespace tessera::trainer
