// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <new>
#include <optional>
#include <tessera/trainer/training_run.hpp>

#include "base/log.hpp"
#include "base/seconds_since.hpp"
#include "comm/agree.hpp"
#include "memory_report.hpp"
#include "start_up.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"
#include "tessera/trainer/loss_curve.hpp"
#include "tessera/trainer/metrics.hpp"
#include "tessera/trainer/metrics_table.hpp"
#include "tessera/trainer/run_lock.hpp"
#include "tessera/trainer/step_profile.hpp"
#include "training_session.hpp"

namespace tessera::trainer {
namespace {

using Clock = std::chrono::steady_clock;

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
        session_(grid, options, std::move(source)),
        last_step_(last_step(options.num_steps, session_.total_steps(), session_.state().step)) {
    if (options.foretell_memory) {
      foretold_ = options.foretell_memory(session_.config(), session_.data().sequence_length());
    }
    start_.end("data and memory");
  }

  /// A rank without memory ends it with its numbers; the others then wait for it.
  TrainingSummary train(const StopRequest& stop) {
    try {
      return train_to_the_end(stop);
    } catch (const OutOfMemory& error) {
      throw with_report(error.what(), session_.store(), foretold_);
    } catch (const std::bad_alloc&) {
      throw with_report("no memory for data of the processor", session_.store(), foretold_);
    }
  }

 private:
  TrainingSummary train_to_the_end(const StopRequest& stop);
  void load(const StopRequest& stop);
  void one_step(MetricsWriter& writer, MetricsTable& table);
  void end_early();
  StepMetrics step();
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
  TrainingSession<T> session_;
  const std::int64_t last_step_;
  std::string foretold_;    ///< of memory
  int num_lost_steps_ = 0;  ///< in a row
  TrainingSummary summary_;
  std::optional<PhaseTimer> timer_;
  std::optional<StepTraffic> traffic_;
};

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
  const checkpoint::LoadReport report = session_.load(give_up_if_asked);
  std::array<std::int64_t, 2> bytes{report.read_bytes, report.exchanged_bytes};
  grid_.world().all_reduce("bytes read", std::span<std::int64_t>(bytes), comm::ReduceOp::sum);
  time_.expect_save(seconds_since(start), bytes[0], all_parameters(session_.source().units));
  constexpr double mib = 1024.0 * 1024.0;
  log_info("read {:.1f} MiB in {:.2f} s ({:.1f} MiB exchanged between ranks){}",
           static_cast<double>(bytes[0]) / mib, seconds_since(start),
           static_cast<double>(bytes[1]) / mib,
           options_.verify == Verify::yes ? "; each expert is held once, as the file has it" : "");
}

template <class T>
StepMetrics Run<T>::step() {
  const auto [metrics, num_targets] = session_.step();
  if (metrics.dropped) {
    log_warning(
        "step {} dropped: {}", metrics.step,
        num_targets == 0 ? "no label takes part in the loss" : "the gradient is not finite");
  }
  num_lost_steps_ = metrics.dropped && num_targets > 0 ? num_lost_steps_ + 1 : 0;
  if (num_lost_steps_ == max_lost_steps) {
    fail(ErrorKind::numeric,
         "the gradient was not finite in {} steps in a row, up to step {} (nothing is learned any "
         "more, "
         "nothing is saved); resume from a checkpoint with a lower learning rate",
         max_lost_steps, metrics.step);
  }
  return metrics;
}

template <class T>
void Run<T>::save() {
  const auto start = Clock::now();
  lock_.require(grid_.world());
  summary_.checkpoint = checkpoint_path(options_.output, session_.state().step);
  session_.save(summary_.checkpoint);
  set_latest(grid_.world(), summary_.checkpoint);
  if (options_.num_kept > 0) keep_newest(grid_.world(), options_.output, options_.num_kept);
  time_.took_save(seconds_since(start));
  log_info("saved {} in {:.2f} s", summary_.checkpoint.string(), seconds_since(start));
}

/// In a complete checkpoint: that of the last step done, or the one that this run began with.
template <class T>
void Run<T>::end_early() {
  log_info("{} before step {}{}", describe(summary_.stopped), session_.state().step + 1,
           summary_.stopped == StopReason::time_limit ? ": " + time_.describe() : "");
  const bool is_new = session_.state().step > summary_.first_step;
  if (is_new && summary_.checkpoint != checkpoint_path(options_.output, session_.state().step))
    save();
}

/// Straight from the shards, after the last step.
template <class T>
void Run<T>::write_hugging_face() {
  const auto start = Clock::now();
  session_.export_hugging_face(options_.export_directory);
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
  const bool is_last = session_.state().step == last_step_;
  const auto due = [&](std::int64_t every) {
    return every > 0 && session_.state().step % every == 0;
  };
  if (session_.sampler().num_held_out() > 0 && (due(options_.evaluate_every) || is_last)) {
    metrics.eval_loss = session_.evaluate();
  }
  if (session_.state().step == summary_.first_step + 1) {
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
  session_.data().validate(grid_.world());
  log_info("{}; {}", grid_.describe(), session_.data().description());
  load(stop);
  start_.end("loading");
  log_info("{}", describe_memory(grid_.world(), session_.store(), foretold_));
  // Else a run that is stopped before its first save would be resumed as the one before it.
  if (options_.resume.empty()) forget_latest(grid_.world(), options_.output);
  MetricsWriter writer(grid_.world(), options_.output / "metrics.jsonl", session_.state().step);
  MetricsTable table(stdout, options_.log_every, last_step_);
  summary_.first_step = session_.state().step;
  if (options_.profile) start_profile();
  while (session_.state().step < last_step_) {
    summary_.stopped = time_.reason_to_stop(grid_.world(), stop);
    if (summary_.stopped != StopReason::none) break;
    one_step(writer, table);
  }
  const bool is_done = summary_.stopped == StopReason::none;
  if (!is_done) end_early();
  if (options_.num_steps == 0) save();  // the model as it came, as a checkpoint to go on from
  summary_.last_step = session_.state().step;
  if (!options_.export_directory.empty() && is_done) write_hugging_face();
  log_info("{}", describe_taken(grid_.world(), *session_.store().pool().arena(), mib_before_));
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
