// SPDX-License-Identifier: Apache-2.0
// Phases of a step: each is charged with the time in which no inner one runs, so that they add up
// to the step; the profile of all ranks is a table, JSON and one Chrome trace.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tessera/trainer/random_steps.hpp>
#include <tessera/trainer/step_profile.hpp>

#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::trainer {
namespace {

/// A clock that stands still until it is told.
struct Clock {
  double now_s = 10.0;
  int num_fences = 0;
  PhaseTimer timer{[this] { ++num_fences; }, [this] { return now_s; }};
};

/// One step: 1 s, attention 2 s with a wait of 4 s in it, 8 s; head 16 s.
void run_step(Clock& clock) {
  clock.timer.begin_step();
  clock.now_s += 1.0;
  {
    TimedPhase timed(StepPhase::attention_forward);
    clock.now_s += 2.0;
    {
      const TimedPhase wait(StepPhase::gather_wait);
      clock.now_s += 4.0;
    }
    clock.now_s += 8.0;
    timed.next(StepPhase::head);
    clock.now_s += 16.0;
  }
  clock.timer.end_step();
}

constexpr const char* tiny_model = R"({"model_type": "gpt_oss", "hidden_size": 32,
  "intermediate_size": 16, "num_local_experts": 4, "num_experts_per_tok": 2,
  "num_hidden_layers": 2, "vocab_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1,
  "head_dim": 16, "pad_token_id": null})";

StepProfile profile_tiny_model(const comm::ProcessGrid& grid, std::int64_t num_steps) {
  RandomSteps options;
  options.batch = grid.world().size(), options.length = 16, options.num_steps = num_steps;
  return profile_random_steps(grid, model::parse_config(tiny_model, "tiny"), options);
}

}  // namespace

TEST_CASE("The time of an inner phase is not that of the outer one, and all add up to the step") {
  Clock clock;
  run_step(clock);
  CHECK(clock.timer.num_steps() == 1);
  CHECK(clock.timer.seconds(StepPhase::other) == 1.0);
  CHECK(clock.timer.seconds(StepPhase::attention_forward) == 10.0);
  CHECK(clock.timer.seconds(StepPhase::gather_wait) == 4.0);
  CHECK(clock.timer.seconds(StepPhase::head) == 16.0);
  CHECK(clock.timer.step_seconds() == 31.0);
  CHECK(clock.num_fences == 8);  // at each border of a phase, or kernels count elsewhere
}

TEST_CASE("The first step counts only as long as it is the only one") {
  Clock clock;
  clock.timer.begin_step();
  clock.now_s += 1000.0;
  clock.timer.end_step();
  CHECK(clock.timer.step_seconds() == 1000.0);
  run_step(clock);
  run_step(clock);
  CHECK(clock.timer.num_steps() == 2);
  CHECK(clock.timer.step_seconds() == 62.0);
}

TEST_CASE("What is between steps is not counted") {
  Clock clock;
  run_step(clock);
  {
    const TimedPhase timed(StepPhase::head);
    clock.now_s += 100.0;
  }
  run_step(clock);
  run_step(clock);
  CHECK(clock.timer.step_seconds() == 62.0);
  CHECK(clock.timer.seconds(StepPhase::head) == 32.0);
}

TEST_CASE("The last three steps are kept as events, inner ones within outer ones") {
  Clock clock;
  for (int i = 0; i < 5; ++i) run_step(clock);
  const auto& steps = clock.timer.kept_steps();
  CHECK(steps.size() == 3);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const std::vector<PhaseEvent>& events = steps[i];
    const double begin = 31.0 * (2.0 + static_cast<double>(i));
    CHECK(events.size() == 4);
    CHECK(events[0].phase == StepPhase::gather_wait);
    CHECK(events[0].begin_s == begin + 3.0);
    CHECK(events[0].end_s == begin + 7.0);
    CHECK(events[1].phase == StepPhase::attention_forward);
    CHECK(events[1].begin_s == begin + 1.0);
    CHECK(events[1].end_s == begin + 15.0);
    CHECK(events[3].phase == StepPhase::other);
    CHECK(events[3].begin_s == begin);
    CHECK(events[3].end_s == begin + 31.0);
  }
}

TEST_CASE("Without a timer a phase does nothing") {
  CHECK(PhaseTimer::current() == nullptr);
  TimedPhase timed(StepPhase::head);
  timed.next(StepPhase::embed);
  { const Clock clock; }
  CHECK(PhaseTimer::current() == nullptr);
}

TEST_CASE("Minimum, mean and maximum are those of all ranks") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1});
  const int rank = grid.world().rank(), size = grid.world().size();
  Clock clock;
  clock.timer.begin_step();
  clock.now_s += 1.0 + rank;
  clock.timer.end_step();
  const StepProfile profile = step_profile(grid.world(), clock.timer);
  CHECK(profile.num_ranks == size);
  CHECK(profile.rows.size() == 1);
  CHECK(profile.step_ms.min == 1000.0);
  CHECK(profile.step_ms.max == 1000.0 * size);
  CHECK(profile.step_ms.mean == Approx(1000.0 * (size + 1) / 2.0));
}

TEST_CASE("The phases of a real step add up to it on every grid") {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (const int expert : std::set<int>{1, size}) {
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    const StepProfile profile = profile_tiny_model(grid, 2);
    CHECK(profile.num_steps == 2);
    std::set<StepPhase> phases;
    double sum = 0.0, share = 0.0;
    for (const StepProfile::Row& row : profile.rows) {
      phases.insert(row.phase);
      sum += row.ms.mean;
      share += row.share;
      CHECK(row.ms.min <= row.ms.mean * (1.0 + 1e-12));
      CHECK(row.ms.mean <= row.ms.max * (1.0 + 1e-12));
    }
    CHECK(sum == Approx(profile.step_ms.mean).epsilon(1e-9));
    CHECK(share == Approx(1.0).epsilon(1e-9));
    for (const StepPhase phase :
         {StepPhase::embed, StepPhase::attention_forward, StepPhase::attention_backward,
          StepPhase::route_forward, StepPhase::route_backward, StepPhase::dispatch_forward,
          StepPhase::dispatch_backward, StepPhase::expert_forward, StepPhase::expert_backward,
          StepPhase::combine_forward, StepPhase::combine_backward, StepPhase::head,
          StepPhase::optimizer}) {
      INFO(to_string(phase));
      CHECK(phases.contains(phase));
    }
    CHECK(phases.contains(StepPhase::reduce_scatter) == (size > 1));
  }
}

TEST_CASE("profile.json and trace.json are JSON, the trace with the events of all ranks") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1});
  Clock clock;
  for (int i = 0; i < 5; ++i) run_step(clock);
  const StepProfile profile = step_profile(grid.world(), clock.timer);
  const auto json = nlohmann::json::parse(to_json(profile), nullptr, false);
  CHECK(json.value("num_steps", 0) == 4);
  CHECK(json["phases"].size() == 4);
  const std::string trace = chrome_trace(grid.world(), clock.timer);
  if (grid.world().rank() != 0) {
    CHECK(trace.empty());
    return;
  }
  const auto parsed = nlohmann::json::parse(trace, nullptr, false);
  CHECK(parsed.is_object());
  std::vector<int> num_events(static_cast<std::size_t>(grid.world().size()));
  for (const auto& event : parsed["traceEvents"]) {
    if (event["ph"] == "X") ++num_events[event["pid"].get<std::size_t>()];
  }
  for (const int count : num_events) CHECK(count == 12);  // four of each kept step
  CHECK(parsed["traceEvents"][0]["name"] == "gather wait");
  CHECK(parsed["traceEvents"][0]["dur"] == 4e6);
}

}  // namespace tessera::trainer
