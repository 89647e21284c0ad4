// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <tessera/trainer/train_step.hpp>

#include "base/error.hpp"
#include "base/phase_timer.hpp"
#include "tessera/zero3/grad_norm.hpp"

namespace tessera::trainer {
namespace {

using comm::ReduceOp;

std::int64_t count_targets(const comm::ProcessGrid& grid, std::span<const model::Batch> batches) {
  std::int64_t count = 0;
  for (const model::Batch& batch : batches) count += batch.num_targets;
  return grid.world().all_reduce_value("count targets", count, ReduceOp::sum);
}

/// Busiest expert over the mean, of all layers the worst; load [layers with experts, E] summed
/// over ranks; 1 in a dense model.
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

/// The auxiliary loss is no sum over micro-steps: its gradient in the first one needs the choices
/// of all. They are found by forward passes of their own.
template <class T>
void collect_routing(const comm::ProcessGrid& grid, model::Transformer<T>& model,
                     std::span<const model::Batch> batches, moe::LoadBalance& balance) {
  model::PassOptions pass;
  pass.with_gradient = false;
  pass.balance = &balance;
  for (const model::Batch& batch : batches) model.pass(batch, pass);
  balance.finish(grid.world());
}

}  // namespace

void require_aux_loss(const model::ModelConfig& config, double aux_coefficient) {
  if (aux_coefficient == 0.0 || config.has_aux_loss) return;
  fail(ErrorKind::usage,
       "the family {} has no load-balancing loss (its experts are balanced in another way, or it "
       "has "
       "none); leave --aux-loss-coef out",
       config.family);
}

template <class T>
StepOutcome compute_gradient(const comm::ProcessGrid& grid, model::Transformer<T>& model,
                             zero3::ParameterStore<T>& store, std::span<const model::Batch> batches,
                             double aux_coefficient) {
  const kernel::PoolScope scope(model.pool());
  StepOutcome outcome;
  outcome.num_targets = count_targets(grid, batches);
  {
    const TimedPhase timed(StepPhase::optimizer);
    store.zero_gradients();
  }

  model::PassOptions pass;
  // The one scale factor there is: everything after it is a plain sum over ranks and micro-steps.
  pass.loss_scale = outcome.num_targets > 0 ? 1.0 / static_cast<double>(outcome.num_targets) : 0.0;
  pass.aux_coefficient = aux_coefficient;
  moe::LoadBalance balance(model.config().num_experts);
  if (aux_coefficient != 0.0 && outcome.num_targets > 0) pass.balance = &balance;
  if (pass.balance != nullptr && batches.size() > 1) collect_routing(grid, model, batches, balance);

  double loss_sum = 0.0;
  std::vector<std::int64_t> load;
  for (const model::Batch& batch : batches) {
    const model::PassResult result = model.pass(batch, pass);
    loss_sum += result.loss_sum;
    load.resize(result.expert_load.size());
    for (std::size_t e = 0; e < load.size(); ++e) load[e] += result.expert_load[e];
  }
  outcome.aux_loss = balance.loss();
  grid.world().all_reduce("expert load", std::span<std::int64_t>(load), ReduceOp::sum);
  outcome.expert_load = load_imbalance(load, model.config().num_experts);
  outcome.expert_choices = std::move(load);
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
  const TimedPhase timed(StepPhase::optimizer);
  const kernel::PoolScope scope(model.pool());
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
Evaluation evaluate(const comm::ProcessGrid& grid, model::Transformer<T>& model,
                    std::span<const model::Batch> batches) {
  model::PassOptions pass;
  pass.with_gradient = false;
  double loss_sum = 0.0;
  for (const model::Batch& batch : batches) loss_sum += model.pass(batch, pass).loss_sum;
  return {sum_over_ranks(grid, loss_sum), count_targets(grid, batches)};
}

#define TESSERA_INSTANTIATE(T)                                                                    \
  template StepOutcome compute_gradient(const comm::ProcessGrid&, model::Transformer<T>&,         \
                                        zero3::ParameterStore<T>&, std::span<const model::Batch>, \
                                        double);                                                  \
  template StepOutcome train_step(const comm::ProcessGrid&, model::Transformer<T>&,               \
                                  zero3::ParameterStore<T>&, std::span<const model::Batch>,       \
                                  const zero3::OptimizerOptions&, const StepOptions&, bool);      \
  template Evaluation evaluate(const comm::ProcessGrid&, model::Transformer<T>&,                  \
                               std::span<const model::Batch>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::trainer
