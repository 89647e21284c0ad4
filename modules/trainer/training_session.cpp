// SPDX-License-Identifier: Apache-2.0
#include "training_session.hpp"

#include <algorithm>
#include <chrono>

#include "base/seconds_since.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "run_record.hpp"
#include "tessera/trainer/train_step.hpp"

namespace tessera::trainer {

template <class T>
TrainingSession<T>::TrainingSession(const comm::ProcessGrid& grid, const TrainingOptions& options,
                                    ModelSource source)
    : grid_(grid),
      options_(options),
      source_(std::move(source)),
      state_(starting_state()),
      data_(TokenData::open(grid.world(), options.data, data_options())),
      sampler_({data_.num_sequences(), options.num_held_out, state_.seed}),
      reader_(grid.world(), data_, source_.config.vocab_size, options.micro_batch),
      store_(make_store<T>(grid, source_.config, options.gradient_transport)),
      model_(grid, source_.config, store_, options.recompute),
      total_steps_(options.total_steps > 0
                       ? options.total_steps
                       : std::max(options.num_steps, recorded_total_steps(state_))),
      schedule_(schedule_options()) {
  require_aux_loss(source_.config, options_.aux_coefficient);
  const checkpoint::TrainingState earlier = state_;
  state_.optimizer = to_string(options_.optimizer.kind);
  state_.training_json = run_record(options_, total_steps_, data_);
  if (resumes()) compare_with_record(earlier, options_, state_.training_json);
}

template <class T>
checkpoint::TrainingState TrainingSession<T>::starting_state() const {
  if (resumes()) return source_.training;
  checkpoint::TrainingState state;
  state.seed = options_.seed;
  return state;
}

template <class T>
TokenDataOptions TrainingSession<T>::data_options() const {
  TokenDataOptions data = options_.data_options;
  data.vocab_size = source_.config.vocab_size;
  return data;
}

template <class T>
ScheduleOptions TrainingSession<T>::schedule_options() const {
  ScheduleOptions schedule = options_.schedule;
  schedule.total_steps = total_steps_;
  return schedule;
}

template <class T>
checkpoint::LoadReport TrainingSession<T>::load(const BeforeUnit& before_unit) {
  checkpoint::LoadReport report =
      load_parameters(grid_, source_, store_, options_.load, options_.verify, before_unit);
  if (options_.optimizer.kind != zero3::OptimizerKind::adamw) return report;
  for (std::size_t i = 0; i < store_.num_units(); ++i) store_.unit(i).allocate_moments();
  if (resumes() && source_.training.optimizer == "adamw") {
    auto* file = dynamic_cast<checkpoint::Hdf5Source*>(source_.source.get());
    report += load_optimizer(grid_, *file, store_, options_.load, before_unit);
  }
  return report;
}

template <class T>
typename TrainingSession<T>::Step TrainingSession<T>::step() {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  comm::set_current_step(state_.step + 1);
  StepOptions step;
  step.learning_rate = schedule_.learning_rate(state_.step);
  step.max_grad_norm = options_.max_grad_norm;
  step.aux_coefficient = options_.aux_coefficient;
  step.optimizer_step = state_.optimizer_steps + 1;

  const kernel::PoolScope scope(model_.pool());
  const StepBatches read =
      reader_.read(sampler_.sequences_from(state_.data_position, options_.batch));
  const StepOutcome outcome =
      train_step(grid_, model_, store_, std::span<const model::Batch>(read.batches),
                 options_.optimizer, step, read.error != nullptr);
  if (!outcome.updated) comm::agree(grid_.world(), "read the batch", read.error);
  ++state_.step;
  state_.optimizer_steps += outcome.updated ? 1 : 0;
  state_.data_position += options_.batch;

  StepMetrics metrics;
  metrics.step = state_.step;
  metrics.loss = outcome.loss;
  metrics.grad_norm = outcome.grad_norm;
  metrics.learning_rate = step.learning_rate;
  metrics.step_s = seconds_since(start);
  metrics.tokens_per_s =
      static_cast<double>(options_.batch * data_.sequence_length()) / metrics.step_s;
  metrics.peak_rss_mib =
      grid_.world().all_reduce_value("peak memory", peak_rss_mib(), comm::ReduceOp::max);
  metrics.expert_load = outcome.expert_load;
  metrics.dropped = !outcome.updated;
  if (options_.aux_coefficient != 0.0) metrics.aux_loss = outcome.aux_loss;
  return {metrics, outcome.num_targets};
}

template <class T>
double TrainingSession<T>::evaluate() {
  const std::vector<std::int64_t> held_out = sampler_.held_out();
  Evaluation total;
  for (std::size_t begin = 0; begin < held_out.size(); begin += options_.batch) {
    const std::size_t count = std::min<std::size_t>(options_.batch, held_out.size() - begin);
    const StepBatches read = reader_.read(std::span(held_out).subspan(begin, count));
    comm::agree(grid_.world(), "read the held-out sequences", read.error);
    const Evaluation part =
        trainer::evaluate(grid_, model_, std::span<const model::Batch>(read.batches));
    total.loss_sum += part.loss_sum;
    total.num_targets += part.num_targets;
  }
  return total.num_targets > 0 ? total.loss_sum / static_cast<double>(total.num_targets) : 0.0;
}

template <class T>
void TrainingSession<T>::save(const std::filesystem::path& path,
                              std::span<const checkpoint::Field> fields) const {
  save_checkpoint(grid_, store_, path, state_, source_, fields);
}

template <class T>
void TrainingSession<T>::export_hugging_face(const std::filesystem::path& directory) const {
  save_hugging_face(grid_, store_, directory, source_, state_.step, options_.export_options);
}

template class TrainingSession<float>;
template class TrainingSession<bf16>;

}  // namespace tessera::trainer
