// SPDX-License-Identifier: Apache-2.0
// Checked mode: ranks that are about to do different things, or that do not come, are named.
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "base/log.hpp"
#include "comm/communicator.hpp"
#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

using namespace std::chrono_literals;

Communicator checked(std::chrono::milliseconds deadline = 10s) {
  return Communicator(MPI_COMM_WORLD, "group", {.deadline = deadline, .checked = true});
}

// Text of the communication error that `body` throws; empty if it throws none.
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

// Deadlines that the tests provoke are logged; that is not for the reader of a test report.
struct Silence {
  Silence() {
    set_log_sink([](LogLevel, const std::string&) {});
  }
  ~Silence() { set_log_sink({}); }
};

}  // namespace

TEST_CASE("a different operation on the last rank is named on all ranks") {
  const Communicator comm = checked();
  const int last = comm.size() - 1;
  const std::string text = error_of([&] {
    if (comm.rank() == last) {
      comm.barrier("end of step");
    } else {
      comm.all_reduce_value("grad norm", 1.0f, ReduceOp::sum);
    }
  });
  CHECK(contains(text, "rank 0: all_reduce 'grad norm' 1 x f32 sum"));
  CHECK(contains(text, fmt::format("rank {}: barrier 'end of step'", last)));
  CHECK_SAME(comm, text);
}

TEST_CASE("a different count, dtype, name, root and reduction are each found") {
  const Communicator comm = checked();
  const bool odd = comm.rank() == comm.size() - 1;
  std::vector<float> data(4);
  std::vector<std::int32_t> numbers(4);

  const auto sum = [&](std::string_view what, std::size_t count, ReduceOp op) {
    comm.all_reduce(what, std::span<float>(data).first(count), op);
  };
  const std::string count = error_of([&] { sum("x", odd ? 3 : 4, ReduceOp::sum); });
  CHECK(contains(count, "4 x f32"));
  CHECK(contains(count, "3 x f32"));
  const std::string dtype = error_of([&] {
    if (odd) {
      comm.all_reduce("x", std::span<std::int32_t>(numbers), ReduceOp::sum);
    } else {
      sum("x", 4, ReduceOp::sum);
    }
  });
  CHECK(contains(dtype, "4 x i32"));
  const std::string name = error_of([&] { sum(odd ? "layer 2" : "layer 1", 4, ReduceOp::sum); });
  CHECK(contains(name, "'layer 1'"));
  CHECK(contains(name, "'layer 2'"));
  const std::string root =
      error_of([&] { comm.broadcast("x", std::span<float>(data), odd ? 1 : 0); });
  CHECK(contains(root, "from 1"));
  const std::string op = error_of([&] { sum("x", 4, odd ? ReduceOp::max : ReduceOp::sum); });
  CHECK(contains(op, "max"));
}

TEST_CASE("after a mismatch the ranks are in step and can go on") {
  const Communicator comm = checked();
  CHECK(error_of([&] { comm.barrier(comm.rank() == 0 ? "here" : "there"); }) != "");
  CHECK(comm.all_reduce_value<std::int32_t>("ones", 1, ReduceOp::sum) == comm.size());
}

TEST_CASE("counts of all_to_all_v may differ between ranks") {
  const Communicator comm = checked();
  const auto p = static_cast<std::size_t>(comm.size());
  std::vector<std::int64_t> send_counts(p, comm.rank()), receive_counts(p);
  for (std::size_t r = 0; r < p; ++r) receive_counts[r] = static_cast<std::int64_t>(r);
  const std::vector<float> send(p * static_cast<std::size_t>(comm.rank()), 1.0f);
  std::vector<float> receive(p * (p - 1) / 2);
  const std::string text = error_of([&] {
    comm.all_to_all_v("tokens", std::span<const float>(send),
                      std::span<const std::int64_t>(send_counts), std::span<float>(receive),
                      std::span<const std::int64_t>(receive_counts));
  });
  CHECK(text == "");
}

TEST_CASE("a rank that stays away is named and the others do not hang") {
  const Silence silence;
  const Communicator outside(MPI_COMM_WORLD, "outside");
  for (int absent = 0; absent < outside.size(); ++absent) {
    const Communicator comm = checked(400ms);
    const auto begin = std::chrono::steady_clock::now();
    std::string text;
    if (comm.rank() != absent) {
      text = error_of([&] { comm.all_reduce_value("grad norm", 1.0f, ReduceOp::sum); });
      CHECK(contains(text, fmt::format("rank {} did not come", absent)));
      CHECK(contains(text, "all_reduce 'grad norm' 1 x f32"));
      CHECK(error_of([&] { comm.barrier("later"); }) != "");
    }
    CHECK(std::chrono::steady_clock::now() - begin < 5s);
    outside.barrier("end of round");
  }
}

TEST_CASE("a split that one rank does not take part in is found") {
  const Communicator comm = checked();
  const std::string text = error_of([&] {
    if (comm.rank() == 1) {
      comm.barrier("no split");
    } else {
      const Communicator part = comm.split(0, "part");
    }
  });
  CHECK(contains(text, "split 'part'"));
  CHECK(contains(text, "rank 1: barrier 'no split'"));
}
