// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/schedule.hpp"

#include <catch2/catch.hpp>
#include <limits>

#include "base/error.hpp"

using namespace tessera;
using namespace tessera::trainer;

namespace {

ErrorKind kind_of(const ScheduleOptions& options) {
  try {
    const Schedule schedule(options);
  } catch (const Error& error) {
    return error.kind();
  }
  return ErrorKind::internal;
}

}  // namespace

TEST_CASE("Warm-up rises evenly from above zero to the peak") {
  for (const auto kind : {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine}) {
    const Schedule schedule({.kind = kind, .peak = 1.0, .total_steps = 100, .num_warmup_steps = 4});
    CHECK(schedule.learning_rate(0) == Approx(0.2));
    CHECK(schedule.learning_rate(1) == Approx(0.4));
    CHECK(schedule.learning_rate(3) == Approx(0.8));
    CHECK(schedule.learning_rate(4) == 1.0);
  }
}

TEST_CASE("The cosine schedule is at the peak, halfway and at the minimum where it should be") {
  const Schedule schedule({.kind = ScheduleKind::cosine,
                           .peak = 2.0,
                           .total_steps = 110,
                           .num_warmup_steps = 10,
                           .min_fraction = 0.1});
  CHECK(schedule.learning_rate(10) == 2.0);
  CHECK(schedule.learning_rate(60) == Approx(0.5 * (2.0 + 0.2)));
  CHECK(schedule.learning_rate(35) == Approx(0.2 + 1.8 * 0.5 * (1.0 + std::sqrt(0.5))));
  CHECK(schedule.learning_rate(109) > 0.2);
  CHECK(schedule.learning_rate(110) == Approx(0.2));
}

TEST_CASE("The linear schedule falls by the same amount each step") {
  const Schedule schedule(
      {.kind = ScheduleKind::linear, .peak = 1.0, .total_steps = 10, .min_fraction = 0.5});
  for (int step = 0; step <= 10; ++step) {
    CHECK(schedule.learning_rate(step) == Approx(1.0 - 0.05 * step));
  }
}

TEST_CASE("Steps outside the schedule keep the first or the last rate") {
  const Schedule cosine({.kind = ScheduleKind::cosine,
                         .peak = 1.0,
                         .total_steps = 10,
                         .num_warmup_steps = 1,
                         .min_fraction = 0.25});
  CHECK(cosine.learning_rate(11) == 0.25);
  CHECK(cosine.learning_rate(1'000'000'000'000) == 0.25);
  CHECK(cosine.learning_rate(-5) == cosine.learning_rate(0));
  const Schedule constant({.kind = ScheduleKind::constant, .peak = 1.0, .total_steps = 10});
  CHECK(constant.learning_rate(50) == 1.0);
}

TEST_CASE("A schedule that is all warm-up or has no steps has no division by zero") {
  const Schedule warmup(
      {.kind = ScheduleKind::cosine, .peak = 1.0, .total_steps = 4, .num_warmup_steps = 4});
  CHECK(warmup.learning_rate(3) == Approx(0.8));
  CHECK(warmup.learning_rate(4) == 0.0);
  const Schedule empty({.kind = ScheduleKind::linear, .peak = 1.0, .total_steps = 0});
  CHECK(empty.learning_rate(0) == 0.0);
}

TEST_CASE("The rate never rises after the warm-up and never leaves its bounds") {
  for (const auto kind : {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine}) {
    const Schedule schedule({.kind = kind,
                             .peak = 3e-4,
                             .total_steps = 77,
                             .num_warmup_steps = 7,
                             .min_fraction = 0.1});
    for (int step = 7; step < 100; ++step) {
      CHECK(schedule.learning_rate(step + 1) <= schedule.learning_rate(step));
      CHECK(schedule.learning_rate(step) >= 3e-5 * (1 - 1e-12));
    }
  }
}

TEST_CASE("Impossible schedules are usage errors") {
  CHECK(kind_of({.total_steps = 10, .num_warmup_steps = 11}) == ErrorKind::usage);
  CHECK(kind_of({.total_steps = -1}) == ErrorKind::usage);
  CHECK(kind_of({.num_warmup_steps = -1}) == ErrorKind::usage);
  CHECK(kind_of({.peak = -1.0}) == ErrorKind::usage);
  CHECK(kind_of({.peak = std::numeric_limits<double>::quiet_NaN()}) == ErrorKind::usage);
  CHECK(kind_of({.min_fraction = 1.5}) == ErrorKind::usage);
  CHECK_THROWS_AS(parse_schedule("cosin"), Error);
  CHECK(parse_schedule("linear") == ScheduleKind::linear);
}
