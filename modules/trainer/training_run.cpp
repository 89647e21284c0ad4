// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <new>
#include <optional>
#include <tessera/trainer/training_run.hpp>

#include "base/log.hpp"
#include "comm/agree.hpp"
#include "comm/watchdog.hpp"
#include "memory_report.hpp"
#include "run_record.hpp"
#include "start_up.hpp"
#include "tessera/trainer/batch_reader.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"
#include "tessera/trainer/loss_curve.hpp"
#include "tessera/trainer/metrics.hpp"
#include "tessera/trainer/metrics_table.hpp"
#include "tessera/trainer/model_state.hpp"
#include "tessera/trainer/run_lock.hpp"
#include "tessera/trainer/sampler.hpp"
#include "tessera/trainer/step_profile.hpp"
#include "tessera/trainer/train_step.hpp"

namespace tessera::trainer {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Steps in a row with a gradient that is not finite, after which going on is no use.
constexpr int max_lost_steps = 10;

template <class T>
class Run {
 public:
  Run(const comm::ProcessGrid& grid, const TrainingOptions& options, const RunLock& lock,
      ModelSource source, StartUp start)
      : grid_(grid),
        options_(options),
        lock_(lock),
        time_(grid.world(), options.time_limit),
        start_(std::move(start)),
        source_(std::move(source)),
        state_(options.resume.empty() ? checkpoint::TrainingState() : source_.training),
        data_(TokenData::open(grid.world(), options.data, data_options(options, source_))),
        sampler_({data_.num_sequences(), options.num_held_out, seed()}),
        reader_(grid.world(), data_, source_.config.vocab_size, options.micro_batch),
        store_(make_store<T>(grid, source_.config, options.gradient_transport)),
        model_(grid, source_.config, store_, options.recompute) {
    prepare();
    start_.end("data and memory");
  }

  /// A rank without memory ends it with its numbers; the others then wait for it.
  TrainingSummary train(const StopRequest& stop) {
    try {
      return train_to_the_end(stop);
    } catch (const OutOfMemory& error) {
      throw with_report(error.what(), store_, foretold_);
    } catch (const std::bad_alloc&) {
      throw with_report("no memory for data of the processor", store_, foretold_);
    }
  }

 private:
  static TokenDataOptions data_options(const TrainingOptions& options, const ModelSource& source) {
    TokenDataOptions data = options.data_options;
    data.vocab_size = source.config.vocab_size;
    return data;
  }
  std::uint64_t seed() const { return options_.resume.empty() ? options_.seed : state_.seed; }

  TrainingSummary train_to_the_end(const StopRequest& stop);
  void prepare();
  void load(const StopRequest& stop);
  void one_step(MetricsWriter& writer, MetricsTable& table);
  void end_early();
  StepMetrics step();
  double evaluate_held_out();
  void save();
  void write_hugging_face();
  void start_profile();
  void finish_profile();

  double mib_before_ = proportional_set_mib();  // first: before anything of the model is there
  const comm::ProcessGrid& grid_;
  const TrainingOptions& options_;
  const RunLock& lock_;
  TimeLimit time_;
  StartUp start_;
  ModelSource source_;
  checkpoint::TrainingState state_;
  TokenData data_;
  Sampler sampler_;
  BatchReader reader_;
  zero3::ParameterStore<T> store_;
  model::Transformer<T> model_;
  std::string foretold_;  ///< of memory
  std::optional<Schedule> schedule_;
  std::int64_t total_steps_ = 0;
  std::int64_t last_step_ = 0;
  int num_lost_steps_ = 0;  ///< in a row
  TrainingSummary summary_;
  std::optional<PhaseTimer> timer_;
  std::optional<StepTraffic> traffic_;
};

template <class T>
void Run<T>::prepare() {
  require_aux_loss(source_.config, options_.aux_coefficient);
  if (options_.foretell_memory) {
    foretold_ = options_.foretell_memory(source_.config, data_.sequence_length());
  }
  const checkpoint::TrainingState earlier = state_;
  total_steps_ = options_.total_steps;
  if (total_steps_ == 0) total_steps_ = std::max(options_.num_steps, recorded_total_steps(earlier));
  last_step_ = last_step(options_.num_steps, total_steps_, earlier.step);
  ScheduleOptions schedule = options_.schedule;
  schedule.total_steps = total_steps_;
  schedule_.emplace(schedule);
  state_.seed = seed();
  state_.optimizer = to_string(options_.optimizer.kind);
  state_.training_json = run_record(options_, total_steps_, data_);
  if (!options_.resume.empty()) compare_with_record(earlier, options_, state_.training_json);
}

/// Nothing is lost by a stop before the first step, so a long load need not be waited for.
template <class T>
void Run<T>::load(const StopRequest& stop) {
  const auto start = Clock::now();
  const auto give_up_if_asked = [&] {
    const StopReason reason = time_.reason_to_stop(grid_.world(), stop);
    if (reason == StopReason::none) return;
    fail(ErrorKind::interrupted,
         "{} while the model was loaded (no step was done, and files are "
         "as they were)",
         describe(reason));
  };
  checkpoint::LoadReport report =
      load_parameters(grid_, source_, store_, options_.load, options_.verify, give_up_if_asked);
  if (options_.optimizer.kind == zero3::OptimizerKind::adamw) {
    for (std::size_t i = 0; i < store_.num_units(); ++i) store_.unit(i).allocate_moments();
    auto* file = dynamic_cast<checkpoint::Hdf5Source*>(source_.source.get());
    if (!options_.resume.empty() && source_.training.optimizer == "adamw") {
      report += load_optimizer(grid_, *file, store_, options_.load, give_up_if_asked);
    }
  }
  std::array<std::int64_t, 2> bytes{report.read_bytes, report.exchanged_bytes};
  grid_.world().all_reduce("bytes read", std::span<std::int64_t>(bytes), comm::ReduceOp::sum);
  time_.expect_save(seconds_since(start), bytes[0], all_parameters(source_.units));
  constexpr double mib = 1024.0 * 1024.0;
  log_info("read {:.1f} MiB in {:.2f} s ({:.1f} MiB exchanged between ranks){}",
           static_cast<double>(bytes[0]) / mib, seconds_since(start),
           static_cast<double>(bytes[1]) / mib,
           options_.verify == Verify::yes ? "; each expert is held once, as the file has it" : "");
}

template <class T>
StepMetrics Run<T>::step() {
  const auto start = Clock::now();
  comm::set_current_step(state_.step + 1);
  StepOptions step;
  step.learning_rate = schedule_->learning_rate(state_.step);
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
  if (metrics.dropped) {
    log_warning("step {} dropped: {}", state_.step,
                outcome.num_targets == 0 ? "no label takes part in the loss"
                                         : "the gradient is not finite");
  }
  num_lost_steps_ = metrics.dropped && outcome.num_targets > 0 ? num_lost_steps_ + 1 : 0;
  if (num_lost_steps_ == max_lost_steps) {
    fail(ErrorKind::numeric,
         "the gradient was not finite in {} steps in a row, up to step {} (nothing is learned any "
         "more, "
         "nothing is saved); resume from a checkpoint with a lower learning rate",
         max_lost_steps, state_.step);
  }
  return metrics;
}

template <class T>
double Run<T>::evaluate_held_out() {
  const std::vector<std::int64_t> held_out = sampler_.held_out();
  Evaluation total;
  for (std::size_t begin = 0; begin < held_out.size(); begin += options_.batch) {
    const std::size_t count = std::min<std::size_t>(options_.batch, held_out.size() - begin);
    const StepBatches read = reader_.read(std::span(held_out).subspan(begin, count));
    comm::agree(grid_.world(), "read the held-out sequences", read.error);
    const Evaluation part = evaluate(grid_, model_, std::span<const model::Batch>(read.batches));
    total.loss_sum += part.loss_sum;
    total.num_targets += part.num_targets;
  }
  return total.num_targets > 0 ? total.loss_sum / static_cast<double>(total.num_targets) : 0.0;
}

template <class T>
void Run<T>::save() {
  const auto start = Clock::now();
  lock_.require(grid_.world());
  summary_.checkpoint = checkpoint_path(options_.output, state_.step);
  save_checkpoint(grid_, store_, summary_.checkpoint, state_, source_);
  set_latest(grid_.world(), summary_.checkpoint);
  if (options_.num_kept > 0) keep_newest(grid_.world(), options_.output, options_.num_kept);
  time_.took_save(seconds_since(start));
  log_info("saved {} in {:.2f} s", summary_.checkpoint.string(), seconds_since(start));
}

/// In a complete checkpoint: that of the last step done, or the one that this run began with.
template <class T>
void Run<T>::end_early() {
  log_info("{} before step {}{}", describe(summary_.stopped), state_.step + 1,
           summary_.stopped == StopReason::time_limit ? ": " + time_.describe() : "");
  const bool is_new = state_.step > summary_.first_step;
  if (is_new && summary_.checkpoint != checkpoint_path(options_.output, state_.step)) save();
}

/// Straight from the shards, after the last step.
template <class T>
void Run<T>::write_hugging_face() {
  const auto start = Clock::now();
  save_hugging_face(grid_, store_, options_.export_directory, source_, state_.step,
                    options_.export_options);
  log_info("exported {} in {:.2f} s", options_.export_directory.string(), seconds_since(start));
}

/// The ranks' clocks start together.
template <class T>
void Run<T>::start_profile() {
  grid_.world().barrier("start of the clocks");
  timer_.emplace([] { Kokkos::fence(); });
  traffic_.emplace(grid_);
}

template <class T>
void Run<T>::finish_profile() {
  const StepProfile profile = step_profile(grid_.world(), *timer_, *traffic_);
  write_profile(grid_.world(), *timer_, profile, options_.output);
  if (grid_.world().rank() == 0) fmt::print("{}", describe(profile));
}

/// With what belongs to it: evaluation, metrics, and the checkpoint where one is due.
template <class T>
void Run<T>::one_step(MetricsWriter& writer, MetricsTable& table) {
  const auto start = Clock::now();
  if (timer_) timer_->begin_step();
  if (traffic_) traffic_->begin_step();
  StepMetrics metrics = step();
  if (timer_) timer_->end_step();
  if (traffic_) traffic_->end_step();
  const bool is_last = state_.step == last_step_;
  const auto due = [&](std::int64_t every) { return every > 0 && state_.step % every == 0; };
  if (sampler_.num_held_out() > 0 && (due(options_.evaluate_every) || is_last)) {
    metrics.eval_loss = evaluate_held_out();
  }
  if (state_.step == summary_.first_step + 1) {
    summary_.first_loss = metrics.loss;
    start_.end("the step");
    log_info("first step done {}", start_.describe());
  }
  summary_.last_loss = metrics.loss;
  writer.write(metrics);
  if (grid_.world().rank() == 0) table.add(metrics);
  time_.took_step(seconds_since(start));
  if (due(options_.save_every) || (is_last && options_.saves_at_end)) save();
}

template <class T>
TrainingSummary Run<T>::train_to_the_end(const StopRequest& stop) {
  if (!options_.export_directory.empty()) {
    checkpoint::require_export_target(grid_.world(), options_.export_directory,
                                      options_.export_options);
  }
  data_.validate(grid_.world());
  log_info("{}; {}", grid_.describe(), data_.description());
  load(stop);
  start_.end("loading");
  log_info("{}", describe_memory(grid_.world(), store_, foretold_));
  // Else a run that is stopped before its first save would be resumed as the one before it.
  if (options_.resume.empty()) forget_latest(grid_.world(), options_.output);
  MetricsWriter writer(grid_.world(), options_.output / "metrics.jsonl", state_.step);
  MetricsTable table(stdout, options_.log_every, last_step_);
  summary_.first_step = state_.step;
  if (options_.profile) start_profile();
  while (state_.step < last_step_) {
    summary_.stopped = time_.reason_to_stop(grid_.world(), stop);
    if (summary_.stopped != StopReason::none) break;
    one_step(writer, table);
  }
  const bool is_done = summary_.stopped == StopReason::none;
  if (!is_done) end_early();
  if (options_.num_steps == 0) save();  // the model as it came, as a checkpoint to go on from
  summary_.last_step = state_.step;
  if (!options_.export_directory.empty() && is_done) write_hugging_face();
  log_info("{}", describe_taken(grid_.world(), *store_.pool().arena(), mib_before_));
  writer.finish(grid_.world());
  if (timer_) finish_profile();
  if (grid_.world().rank() == 0 && summary_.last_step > 0) {
    draw_loss_curve(options_.output / "metrics.jsonl", options_.output / "loss.png");
  }
  return summary_;
}

}  // namespace

TrainingSummary run_training(const comm::ProcessGrid& grid, const TrainingOptions& given,
                             const StopRequest& stop) {
  StartUp start;
  const RunLock lock(grid.world(), given.output);
  const TrainingOptions options = continued(grid.world(), given);
  ModelSource source = open_start(grid, options);
  start.end("headers");
  log_info("{}", model::describe(source.config));
  if (options.dtype == Dtype::bf16)
    return Run<bf16>(grid, options, lock, std::move(source), std::move(start)).train(stop);
  return Run<float>(grid, options, lock, std::move(source), std::move(start)).train(stop);
}

}  // namespace tessera::trainer
