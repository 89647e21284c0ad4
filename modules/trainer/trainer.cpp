// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <tessera/trainer/trainer.hpp>

#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "run_record.hpp"
#include "tessera/trainer/batch_reader.hpp"
#include "tessera/trainer/sampler.hpp"
#include "tessera/trainer/train_step.hpp"

namespace tessera::trainer {
namespace {

using Clock = std::chrono::steady_clock;

TokenDataOptions data_options(const TrainingOptions& options, const ModelSource& source) {
  TokenDataOptions data = options.data_options;
  data.vocab_size = source.config.vocab_size;
  return data;
}

template <class T>
class TypedTrainer final : public Trainer {
 public:
  TypedTrainer(const comm::ProcessGrid& grid, TrainingOptions options, ModelSource source)
      : grid_(grid),
        options_(std::move(options)),
        source_(std::move(source)),
        state_(starting_state()),
        data_(TokenData::open(grid.world(), options_.data, data_options(options_, source_))),
        sampler_({data_.num_sequences(), options_.num_held_out, state_.seed}),
        reader_(grid.world(), data_, source_.config.vocab_size, options_.micro_batch),
        store_(make_store<T>(grid, source_.config, options_.gradient_transport)),
        model_(grid, source_.config, store_, options_.recompute),
        schedule_(schedule_options()) {
    require_aux_loss(source_.config, options_.aux_coefficient);
    const checkpoint::TrainingState earlier = state_;
    state_.optimizer = to_string(options_.optimizer.kind);
    state_.training_json = run_record(options_, total_steps(), data_);
    if (resumes()) compare_with_record(earlier, options_, state_.training_json);
    data_.validate(grid.world());
    load(earlier);
  }

  StepMetrics step() override;
  double evaluate() override;
  void save(const std::filesystem::path& path, std::span<const checkpoint::Field> fields) override {
    save_checkpoint(grid_, store_, path, state_, source_, fields);
  }
  void export_hugging_face(const std::filesystem::path& directory) override {
    save_hugging_face(grid_, store_, directory, source_, state_.step, options_.export_options);
  }
  const model::ModelConfig& config() const override { return source_.config; }
  const checkpoint::TrainingState& state() const override { return state_; }

 private:
  bool resumes() const { return !options_.resume.empty(); }
  checkpoint::TrainingState starting_state() const {
    if (resumes()) return source_.training;
    checkpoint::TrainingState state;
    state.seed = options_.seed;
    return state;
  }
  std::int64_t total_steps() const {
    return options_.total_steps > 0
               ? options_.total_steps
               : std::max(options_.num_steps,
                          resumes() ? recorded_total_steps(source_.training) : 0);
  }
  ScheduleOptions schedule_options() const {
    ScheduleOptions schedule = options_.schedule;
    schedule.total_steps = total_steps();
    return schedule;
  }
  void load(const checkpoint::TrainingState& earlier);
  StepOutcome update(const StepBatches& read, double learning_rate);

  const comm::ProcessGrid& grid_;
  TrainingOptions options_;
  ModelSource source_;
  checkpoint::TrainingState state_;
  TokenData data_;
  Sampler sampler_;
  BatchReader reader_;
  zero3::ParameterStore<T> store_;
  model::Transformer<T> model_;
  Schedule schedule_;
};

template <class T>
void TypedTrainer<T>::load(const checkpoint::TrainingState& earlier) {
  load_parameters(grid_, source_, store_, options_.load, options_.verify);
  if (options_.optimizer.kind != zero3::OptimizerKind::adamw) return;
  for (std::size_t i = 0; i < store_.num_units(); ++i) store_.unit(i).allocate_moments();
  auto* file = dynamic_cast<checkpoint::Hdf5Source*>(source_.source.get());
  if (resumes() && earlier.optimizer == "adamw")
    load_optimizer(grid_, *file, store_, options_.load);
}

template <class T>
StepOutcome TypedTrainer<T>::update(const StepBatches& read, double learning_rate) {
  StepOptions options;
  options.learning_rate = learning_rate;
  options.max_grad_norm = options_.max_grad_norm;
  options.aux_coefficient = options_.aux_coefficient;
  options.optimizer_step = state_.optimizer_steps + 1;
  const kernel::PoolScope scope(model_.pool());
  const StepOutcome outcome =
      train_step(grid_, model_, store_, std::span<const model::Batch>(read.batches),
                 options_.optimizer, options, read.error != nullptr);
  if (!outcome.updated) comm::agree(grid_.world(), "read the batch", read.error);
  return outcome;
}

template <class T>
StepMetrics TypedTrainer<T>::step() {
  const auto start = Clock::now();
  comm::set_current_step(state_.step + 1);
  StepMetrics metrics;
  metrics.learning_rate = schedule_.learning_rate(state_.step);
  const StepOutcome outcome =
      update(reader_.read(sampler_.sequences_from(state_.data_position, options_.batch)),
             metrics.learning_rate);
  metrics.step = ++state_.step;
  state_.optimizer_steps += outcome.updated ? 1 : 0;
  state_.data_position += options_.batch;
  metrics.loss = outcome.loss;
  metrics.grad_norm = outcome.grad_norm;
  metrics.expert_load = outcome.expert_load;
  metrics.dropped = !outcome.updated;
  if (options_.aux_coefficient != 0.0) metrics.aux_loss = outcome.aux_loss;
  metrics.step_s = std::chrono::duration<double>(Clock::now() - start).count();
  metrics.tokens_per_s =
      static_cast<double>(options_.batch * data_.sequence_length()) / metrics.step_s;
  metrics.peak_rss_mib = peak_rss_mib();
  return metrics;
}

template <class T>
double TypedTrainer<T>::evaluate() {
  const std::vector<std::int64_t> held_out = sampler_.held_out();
  if (held_out.empty()) fail(ErrorKind::usage, "there are no held-out sequences; give held-out");
  const kernel::PoolScope scope(model_.pool());
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

}  // namespace

std::unique_ptr<Trainer> Trainer::create(const comm::ProcessGrid& grid, TrainingOptions options) {
  ModelSource source = open_start(grid, options);
  if (options.dtype == Dtype::bf16)
    return std::make_unique<TypedTrainer<bf16>>(grid, std::move(options), std::move(source));
  return std::make_unique<TypedTrainer<float>>(grid, std::move(options), std::move(source));
}

}  // namespace tessera::trainer
