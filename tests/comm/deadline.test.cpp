// SPDX-License-Identifier: Apache-2.0
// Waits end: a rank that is late, or lengths that do not fit, are errors that name the call.
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>

#include "base/log.hpp"
#include "comm/communicator.hpp"
#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

using namespace std::chrono_literals;

// Without the checks, which would find these faults first.
Communicator unchecked(std::chrono::milliseconds deadline) {
  unsetenv("TESSERA_CHECKED");
  return Communicator(MPI_COMM_WORLD, "pair", {.deadline = deadline});
}

template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.kind() == ErrorKind::communication ? error.what() : "another kind";
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a rank that waits for a late one gives up at the deadline and says where it was") {
  std::string logged;
  set_log_sink([&](LogLevel, const std::string& text) { logged += text; });
  const Communicator outside = unchecked(20s);
  const Communicator comm = unchecked(300ms);
  const auto begin = std::chrono::steady_clock::now();
  if (comm.rank() == 1) {
    outside.barrier("given up");
    // The other's part is already there, so that this side may well complete.
    error_of([&] { comm.all_reduce_value("late sum", 1.0, ReduceOp::sum); });
  } else {
    const std::string text =
        error_of([&] { comm.all_reduce_value("late sum", 1.0, ReduceOp::sum); });
    const auto waited = std::chrono::steady_clock::now() - begin;
    outside.barrier("given up");
    CHECK(contains(text, "all_reduce 'late sum' on pair, rank 0 of 2"));
    CHECK((waited >= 300ms && waited < 15s));
    CHECK(contains(logged, "rank 0"));
    CHECK(contains(logged, "in all_reduce 'late sum' on pair"));
    CHECK(contains(error_of([&] { comm.barrier("after"); }), "earlier collective"));
  }
  outside.barrier("end");
  set_log_sink({});
}

TEST_CASE("a block shorter than expected is an error that says who sent it") {
  const Communicator comm = unchecked(5s);
  // Rank 0 sends three elements, rank 1 expects four; the other way round all is well.
  const std::int64_t sent = comm.rank() == 0 ? 3 : 2, expected = comm.rank() == 0 ? 2 : 4;
  std::vector<std::int64_t> send_counts(2, 0), receive_counts(2, 0);
  send_counts[static_cast<std::size_t>(1 - comm.rank())] = sent;
  receive_counts[static_cast<std::size_t>(1 - comm.rank())] = expected;
  const std::vector<float> send(static_cast<std::size_t>(sent), 1.0f);
  std::vector<float> receive(static_cast<std::size_t>(expected));
  const std::string text = error_of([&] {
    comm.all_to_all_v("tokens", std::span<const float>(send),
                      std::span<const std::int64_t>(send_counts), std::span<float>(receive),
                      std::span<const std::int64_t>(receive_counts));
  });
  CHECK(contains(text, comm.rank() == 1 ? "rank 0 sent 3 elements where 4 were expected" : ""));
  CHECK(text.empty() == (comm.rank() == 0));
}

TEST_CASE("a block longer than expected is an error of MPI with the call's name") {
  const Communicator comm = unchecked(5s);
  const std::int64_t sent = comm.rank() == 0 ? 5 : 2, expected = comm.rank() == 0 ? 2 : 4;
  std::vector<std::int64_t> send_counts(2, 0), receive_counts(2, 0);
  send_counts[static_cast<std::size_t>(1 - comm.rank())] = sent;
  receive_counts[static_cast<std::size_t>(1 - comm.rank())] = expected;
  const std::vector<float> send(static_cast<std::size_t>(sent), 1.0f);
  std::vector<float> receive(static_cast<std::size_t>(expected));
  const std::string text = error_of([&] {
    comm.all_to_all_v("tokens", std::span<const float>(send),
                      std::span<const std::int64_t>(send_counts), std::span<float>(receive),
                      std::span<const std::int64_t>(receive_counts));
  });
  CHECK(contains(text, comm.rank() == 1 ? "all_to_all_v 'tokens' on pair, rank 1 of 2" : ""));
  CHECK(contains(text, comm.rank() == 1 ? "truncated" : ""));
}

TEST_CASE("an exception that unwinds past an operation in flight completes it first") {
  const Communicator comm = unchecked(5s);
  std::vector<float> all(2);
  const float mine = static_cast<float>(comm.rank() + 1);
  try {
    const Request request =
        comm.start_all_gather("in flight", std::span<const float>(&mine, 1), std::span<float>(all));
    throw std::runtime_error("stop");
  } catch (const std::runtime_error&) {
  }
  CHECK(all == std::vector<float>{1.0f, 2.0f});
}

TEST_CASE("TESSERA_DEADLINE_S sets the default deadline and nonsense in it is refused") {
  const char* before = std::getenv("TESSERA_DEADLINE_S");
  const std::string saved = before != nullptr ? before : "";
  setenv("TESSERA_DEADLINE_S", "1.5", 1);
  CHECK(CommunicatorOptions{}.deadline == 1500ms);
  setenv("TESSERA_DEADLINE_S", "soon", 1);
  CHECK_THROWS_AS(default_deadline(), Error);
  setenv("TESSERA_DEADLINE_S", "-1", 1);
  CHECK_THROWS_AS(default_deadline(), Error);
  setenv("TESSERA_DEADLINE_S", "1e-9", 1);  // no whole millisecond, and 0 would mean none at all
  CHECK_THROWS_AS(default_deadline(), Error);
  unsetenv("TESSERA_DEADLINE_S");
  CHECK(default_deadline() == 10min);
  setenv("TESSERA_DEADLINE_S", saved.c_str(), 1);
}
