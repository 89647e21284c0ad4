// SPDX-License-Identifier: Apache-2.0
// What is said of a rank that does not come: which one, and on which host.
#include "comm/roll_call.hpp"

#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <thread>

#include "base/log.hpp"
#include "comm/communicator.hpp"
#include "support/collective_check.hpp"

namespace tessera::comm {
namespace {

using Catch::Contains;
using namespace std::chrono_literals;

std::string rank_and_host(int rank) {
  std::array<char, 32> host{};
  ::gethostname(host.data(), host.size() - 1);
  return fmt::format("rank {} ({})", rank, host.data());
}

/// What this rank says when a barrier that rank `absent` comes to after `late` passes its deadline.
std::string said(const Communicator& world, int absent, std::chrono::milliseconds deadline,
                 std::chrono::milliseconds late) {
  ::unsetenv("TESSERA_CHECKED");  // which names missing ranks in its own way
  std::string text;
  set_log_sink([&](LogLevel, const std::string& line) { text += line; });
  {
    const Communicator impatient(MPI_COMM_WORLD, "impatient", {.deadline = deadline});
    if (world.rank() == absent) std::this_thread::sleep_for(late);
    try {
      impatient.barrier("that one misses");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::communication);
    }
  }
  set_log_sink({});
  world.barrier("all are back");
  return text;
}

}  // namespace

TEST_CASE("a rank that does not answer is named with its host") {
  const Communicator world(MPI_COMM_WORLD, "test");
  const int absent = world.size() - 1;
  const std::string text = said(world, absent, 1500ms, 6000ms);
  if (world.rank() == absent) return;
  CHECK_THAT(text, Contains("deadline passed") && Contains("in barrier 'that one misses'") &&
                       Contains("no sign of " + rank_and_host(absent)));
  for (int rank = 0; rank < absent; ++rank) CHECK_THAT(text, !Contains(rank_and_host(rank)));
}

TEST_CASE("where all are there the roll call says so, at once") {
  const Communicator world(MPI_COMM_WORLD, "test");
  const auto start = std::chrono::steady_clock::now();
  const std::string text = call_roll();
  CHECK_THAT(text, Contains("all ranks answer"));
  CHECK(std::chrono::steady_clock::now() - start < 2s);
  world.barrier("heard");
}

TEST_CASE("a rank that waits elsewhere, in no hurry, answers") {
  ::unsetenv("TESSERA_CHECKED");
  const Communicator world(MPI_COMM_WORLD, "test");
  const Communicator patient(MPI_COMM_WORLD, "patient", {.deadline = 20s});
  std::string text;
  set_log_sink([&](LogLevel, const std::string& line) { text += line; });
  {
    const Communicator impatient(MPI_COMM_WORLD, "impatient", {.deadline = 500ms});
    if (world.rank() == 0) CHECK_THROWS_AS(impatient.barrier("that no other comes to"), Error);
    patient.barrier("elsewhere");
  }
  set_log_sink({});
  if (world.rank() == 0) CHECK_THAT(text, Contains("all ranks answer"));
}

}  // namespace tessera::comm
