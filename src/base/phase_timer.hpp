// SPDX-License-Identifier: Apache-2.0
// Where the time of a training step goes: phases that nest, each charged with the time in which no
// inner one runs, so that they add up to the step. Without a timer a phase costs one branch.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

namespace tessera {

enum class StepPhase {
  embed,
  attention_forward,
  attention_backward,
  route_forward,
  route_backward,
  dispatch_forward,
  dispatch_backward,
  expert_forward,
  expert_backward,
  combine_forward,
  combine_backward,
  dense_mlp_forward,
  dense_mlp_backward,
  head,                 ///< vocabulary product and cross-entropy, both directions
  gather,               ///< the own shard narrowed, the all-gather started
  gather_wait,          ///< for what has not arrived when it is needed
  reduce_scatter,       ///< buffers zeroed, the sum started, its result added to the shard
  reduce_scatter_wait,  ///< for what has not arrived when its buffer is needed
  optimizer,            ///< gradient norm, clipping, update; gradient shards to zero
  other                 ///< the rest of the step
};
inline constexpr std::size_t num_step_phases = static_cast<std::size_t>(StepPhase::other) + 1;

/// "attention forward". local.
const char* to_string(StepPhase phase);

/// One stay in a phase, inner phases included; seconds since the timer was made. That of
/// StepPhase::other is the whole step.
struct PhaseEvent {
  StepPhase phase;
  double begin_s;
  double end_s;
};

/// While it lives, TimedPhase objects report to it; one at a time in a process, one thread.
class PhaseTimer {
 public:
  static constexpr std::size_t num_kept_steps = 3;
  static constexpr std::size_t max_events = 100000;  ///< kept of one step

  /// `fence` completes kernels in flight, so that their time counts where they were started.
  /// `clock` gives seconds (default: a steady clock). local.
  explicit PhaseTimer(std::function<void()> fence, std::function<double()> clock = {});
  ~PhaseTimer();
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

  /// Phases outside begin_step() and end_step() are not counted. local.
  void begin_step();
  void end_step();
  void enter(StepPhase phase);
  void leave();

  /// Steps in the sums below. The first step (first allocations, products being compiled) counts
  /// only as long as it is the only one.
  std::int64_t num_steps() const { return num_steps_ > 1 ? num_steps_ - 1 : num_steps_; }
  /// Sum over those steps, without the time of inner phases.
  double seconds(StepPhase phase) const { return seconds_[static_cast<std::size_t>(phase)]; }
  double step_seconds() const;
  /// Of the last steps, in the order in which the phases ended.
  const std::deque<std::vector<PhaseEvent>>& kept_steps() const { return kept_steps_; }

  /// The living one, or null. local.
  static PhaseTimer* current() { return current_; }

 private:
  struct Open {
    StepPhase phase;
    double begin_s;
  };
  /// Charges the time since the last call to the innermost phase; returns the time.
  double charge();

  static inline PhaseTimer* current_ = nullptr;
  std::function<void()> fence_;
  std::function<double()> clock_;
  double origin_s_ = 0.0;
  double last_s_ = 0.0;
  std::vector<Open> open_;
  std::array<double, num_step_phases> seconds_{};
  std::int64_t num_steps_ = 0;
  std::deque<std::vector<PhaseEvent>> kept_steps_;
};

/// A phase from here to the end of the scope.
class TimedPhase {
 public:
  explicit TimedPhase(StepPhase phase) : timer_(PhaseTimer::current()) {
    if (timer_ != nullptr) timer_->enter(phase);
  }
  ~TimedPhase() {
    if (timer_ != nullptr) timer_->leave();
  }
  TimedPhase(const TimedPhase&) = delete;
  TimedPhase& operator=(const TimedPhase&) = delete;

  /// From here on another phase.
  void next(StepPhase phase) {
    if (timer_ == nullptr) return;
    timer_->leave();
    timer_->enter(phase);
  }

 private:
  PhaseTimer* timer_;
};

}  // namespace tessera
