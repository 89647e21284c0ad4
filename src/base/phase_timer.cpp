// SPDX-License-Identifier: Apache-2.0
#include "base/phase_timer.hpp"

#include <chrono>
#include <numeric>

#include "base/contract.hpp"

namespace tessera {
namespace {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

const char* to_string(StepPhase phase) {
  switch (phase) {
    case StepPhase::embed: return "embed";
    case StepPhase::attention_forward: return "attention forward";
    case StepPhase::attention_backward: return "attention backward";
    case StepPhase::route_forward: return "route forward";
    case StepPhase::route_backward: return "route backward";
    case StepPhase::dispatch_forward: return "dispatch forward";
    case StepPhase::dispatch_backward: return "dispatch backward";
    case StepPhase::expert_forward: return "expert forward";
    case StepPhase::expert_backward: return "expert backward";
    case StepPhase::combine_forward: return "combine forward";
    case StepPhase::combine_backward: return "combine backward";
    case StepPhase::dense_mlp_forward: return "dense MLP forward";
    case StepPhase::dense_mlp_backward: return "dense MLP backward";
    case StepPhase::head: return "head";
    case StepPhase::gather: return "gather";
    case StepPhase::gather_wait: return "gather wait";
    case StepPhase::reduce_scatter: return "reduce-scatter";
    case StepPhase::reduce_scatter_wait: return "reduce-scatter wait";
    case StepPhase::optimizer: return "optimizer";
    case StepPhase::other: return "other";
  }
  return "unknown";
}

PhaseTimer::PhaseTimer(std::function<void()> fence, std::function<double()> clock)
    : fence_(std::move(fence)), clock_(clock ? std::move(clock) : steady_seconds) {
  TESSERA_EXPECT(current_ == nullptr);
  origin_s_ = clock_();
  current_ = this;
}

PhaseTimer::~PhaseTimer() { current_ = nullptr; }

double PhaseTimer::charge() {
  fence_();
  const double now = clock_() - origin_s_;
  if (!open_.empty()) seconds_[static_cast<std::size_t>(open_.back().phase)] += now - last_s_;
  last_s_ = now;
  return now;
}

void PhaseTimer::begin_step() {
  TESSERA_EXPECT(open_.empty());
  if (num_steps_ == 1) seconds_.fill(0.0);  // a second one: the first no longer counts
  ++num_steps_;
  std::vector<PhaseEvent> events;
  if (kept_steps_.size() == num_kept_steps) {
    events = std::move(kept_steps_.front());
    kept_steps_.pop_front();
    events.clear();
  }
  kept_steps_.push_back(std::move(events));
  open_.push_back({StepPhase::other, charge()});
}

void PhaseTimer::end_step() {
  TESSERA_EXPECT(open_.size() == 1);
  leave();
}

void PhaseTimer::enter(StepPhase phase) {
  if (open_.empty()) return;
  open_.push_back({phase, charge()});
}

void PhaseTimer::leave() {
  if (open_.empty()) return;
  const double now = charge();
  std::vector<PhaseEvent>& events = kept_steps_.back();
  if (events.size() < max_events) {
    events.push_back({open_.back().phase, open_.back().begin_s, now});
  }
  open_.pop_back();
}

double PhaseTimer::step_seconds() const {
  return std::accumulate(seconds_.begin(), seconds_.end(), 0.0);
}

}  // namespace tessera
