// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <tessera/trainer/train_step.hpp>

#include "tessera/zero3/grad_norm.hpp"

namespace tessera::trainer {
namespace {

using comm::ReduceOp;

std::int64_t count_targets(const comm::ProcessGrid& grid, std::span<const model::Batch> batches) {
  std::int64_t count = 0;
  for (const model::Batch& batch : batches) count += batch.num_targets;
  return grid.world().all_reduce_value("count targets", count, ReduceOp::sum);
}

/// Share of each micro-step in the step's tokens, the same on all ranks.
std::vector<double> token_shares(const comm::ProcessGrid& grid,
                                 std::span<const model::Batch> batches) {
  std::vector<double> tokens;
  for (const model::Batch& batch : batches)
    tokens.push_back(static_cast<double>(batch.num_tokens()));
  grid.world().all_reduce("count tokens", std::span<double>(tokens), ReduceOp::sum);
  const double total = std::accumulate(tokens.begin(), tokens.end(), 0.0);
  for (double& share : tokens) share = total > 0.0 ? share / total : 0.0;
  return tokens;
}

/// Busiest expert over the mean, of all layers the worst; load [L, E] summed over ranks.
double load_imbalance(const std::vector<std::int64_t>& load, std::int64_t num_experts) {
  double worst = 1.0;
  for (auto layer = load.begin(); layer != load.end(); layer += num_experts) {
    const double sum =
        static_cast<double>(std::accumulate(layer, layer + num_experts, std::int64_t{0}));
    const double busiest = static_cast<double>(*std::max_element(layer, layer + num_experts));
    if (sum > 0.0) worst = std::max(worst, busiest * static_cast<double>(num_experts) / sum);
  }
  return worst;
}

double sum_over_ranks(const comm::ProcessGrid& grid, double value) {
  return grid.world().all_reduce_value("loss", value, ReduceOp::sum);
}

}  // namespace

template <class T>
StepOutcome compute_gradient(const comm::ProcessGrid& grid, model::Transformer<T>& model,
                             zero3::ParameterStore<T>& store, std::span<const model::Batch> batches,
                             double aux_coefficient) {
  StepOutcome outcome;
  outcome.num_targets = count_targets(grid, batches);
  const std::vector<double> shares = token_shares(grid, batches);
  store.zero_gradients();

  model::PassOptions pass;
  // The one scale factor there is: everything after it is a plain sum over ranks and micro-steps.
  pass.loss_scale = outcome.num_targets > 0 ? 1.0 / static_cast<double>(outcome.num_targets) : 0.0;
  pass.aux_coefficient = outcome.num_targets > 0 ? aux_coefficient : 0.0;
  double loss_sum = 0.0;
  std::vector<std::int64_t> load;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    pass.aux_share = shares[i];
    const model::PassResult result = model.pass(batches[i], pass);
    loss_sum += result.loss_sum;
    outcome.aux_loss += shares[i] * result.aux_loss;
    load.resize(result.expert_load.size());
    for (std::size_t e = 0; e < load.size(); ++e) load[e] += result.expert_load[e];
  }
  grid.world().all_reduce("expert load", std::span<std::int64_t>(load), ReduceOp::sum);
  outcome.expert_load = load_imbalance(load, model.config().num_experts);
  outcome.loss =
      sum_over_ranks(grid, loss_sum) * pass.loss_scale + aux_coefficient * outcome.aux_loss;
  return outcome;
}

template <class T>
StepOutcome train_step(const comm::ProcessGrid& grid, model::Transformer<T>& model,
                       zero3::ParameterStore<T>& store, std::span<const model::Batch> batches,
                       const zero3::OptimizerOptions& optimizer, const StepOptions& options,
                       bool local_failure) {
  StepOutcome outcome = compute_gradient(grid, model, store, batches, options.aux_coefficient);
  const zero3::GradNorm norm = zero3::global_grad_norm(grid.world(), store, local_failure);
  outcome.grad_norm = norm.norm;
  // Norm and flags are the same numbers on all ranks, so all of them update or none does.
  if (norm.num_failed > 0.0 || !std::isfinite(norm.norm) || outcome.num_targets == 0)
    return outcome;
  zero3::optimizer_step(store, optimizer, options.learning_rate, options.optimizer_step,
                        zero3::clip_factor(norm.norm, options.max_grad_norm));
  outcome.updated = true;
  return outcome;
}

template <class T>
double evaluate(const comm::ProcessGrid& grid, model::Transformer<T>& model,
                std::span<const model::Batch> batches) {
  const std::int64_t num_targets = count_targets(grid, batches);
  model::PassOptions pass;
  pass.with_gradient = false;
  double loss_sum = 0.0;
  for (const model::Batch& batch : batches) loss_sum += model.pass(batch, pass).loss_sum;
  const double total = sum_over_ranks(grid, loss_sum);
  return num_targets > 0 ? total / static_cast<double>(num_targets) : 0.0;
}

#define TESSERA_INSTANTIATE(T)                                                                    \
  template StepOutcome compute_gradient(const comm::ProcessGrid&, model::Transformer<T>&,         \
                                        zero3::ParameterStore<T>&, std::span<const model::Batch>, \
                                        double);                                                  \
  template StepOutcome train_step(const comm::ProcessGrid&, model::Transformer<T>&,               \
                                  zero3::ParameterStore<T>&, std::span<const model::Batch>,       \
                                  const zero3::OptimizerOptions&, const StepOptions&, bool);      \
  template double evaluate(const comm::ProcessGrid&, model::Transformer<T>&,                      \
                           std::span<const model::Batch>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::trainer
