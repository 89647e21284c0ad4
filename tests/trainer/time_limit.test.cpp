// SPDX-License-Identifier: Apache-2.0
// Whether all ranks stop together: for a signal to one of them, or because the slowest of them
// needs more time than is left.
#include <fmt/chrono.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <tessera/trainer/time_limit.hpp>

#include "base/error.hpp"
#include "base/log.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"
#include "trainer/fake_squeue.hpp"

namespace tessera::trainer {
namespace {

using Catch::Contains;

/// So many seconds from now, as squeue writes it.
std::string squeue_time(int seconds) {
  const std::time_t time = std::time(nullptr) + seconds;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}", fmt::localtime(time));
}

}  // namespace

TEST_CASE("a time limit is given in seconds or as Slurm writes it") {
  CHECK(parse_time_limit("90") == 90.0);
  CHECK(parse_time_limit("1:30") == 90.0);
  CHECK(parse_time_limit("2:00:05") == 7205.0);
  CHECK(parse_time_limit("1-02:03:04") == 93784.0);
  for (const char* text :
       {"", "0", "-5", "1.5", "1:", ":5", "1:2:3:4", "1-2", "1-2:3", "2h", "UNLIMITED"})
    CHECK_THROWS_AS(parse_time_limit(text), Error);
}

TEST_CASE("time must suffice for the longest step, the longest save and the margin") {
  set_log_level(LogLevel::error);
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const StopRequest stop;
  const auto is_rank = [&](int rank) { return world.rank() == rank; };
  TimeLimit time(world, {.limit_s = 1000.0, .margin_s = 100.0});
  const auto reason = [&] { return time.reason_to_stop(world, stop); };
  CHECK(reason() == StopReason::none);
  if (is_rank(0)) time.took_step(500.0);
  CHECK(reason() == StopReason::none);
  std::vector<Parameter> written(1);
  written[0].shape = {10};
  time.expect_save(2.0, 1, written);  // 120 bytes at half of 0.5 byte/s
  CHECK(reason() == StopReason::time_limit);
  CHECK_THAT(time.describe(), Contains("a checkpoint 480.0 s"));
  if (is_rank(world.size() - 1))
    time.took_save(300.0);  // measured: that counts
  else
    time.took_save(1.0);
  CHECK(reason() == StopReason::none);
  if (is_rank(world.size() - 1)) time.took_step(650.0);
  CHECK(reason() == StopReason::time_limit);
  CHECK_THAT(time.describe(), Contains("a step takes up to 650.0 s, a checkpoint 300.0 s"));
}

TEST_CASE("a signal to one rank stops all") {
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  for (const int signal : {SIGUSR1, SIGTERM}) {
    const StopRequest stop;
    TimeLimit time(world, {});
    CHECK(time.reason_to_stop(world, stop) == StopReason::none);
    if (world.rank() == world.size() - 1) std::raise(signal);
    CHECK(time.reason_to_stop(world, stop) == StopReason::signal);
  }
}

TEST_CASE("without a limit of its own a run asks Slurm") {
  set_log_level(LogLevel::error);
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory programs(world);
  const test::FakeSlurm slurm(programs.path(), "17");
  const StopRequest stop;
  const auto reason = [&](const std::string& answer, int code) {
    if (world.rank() == 0) slurm.answers(answer, code);
    return TimeLimit(world, {.limit_s = {}, .margin_s = 60.0}).reason_to_stop(world, stop);
  };
  CHECK(reason(squeue_time(50), 0) == StopReason::time_limit);
  if (world.rank() == 0) CHECK_THAT(slurm.arguments(), Contains("--jobs=17 --format=%e"));
  CHECK(reason(squeue_time(300), 0) == StopReason::none);
  CHECK(reason("N/A", 0) == StopReason::none);
  CHECK(reason("no controller", 1) == StopReason::none);
  ::setenv("SLURM_JOB_END_TIME", std::to_string(std::time(nullptr) + 40).c_str(), 1);
  CHECK(reason("no controller", 1) == StopReason::time_limit);
  CHECK(reason(squeue_time(300), 0) == StopReason::none);
}

}  // namespace tessera::trainer
