// SPDX-License-Identifier: Apache-2.0
// Each collective against what a loop over all ranks' data gives.
#include "comm/communicator.hpp"

#include <catch2/catch.hpp>
#include <chrono>

#include "base/polling.hpp"
#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

Communicator world() { return Communicator(MPI_COMM_WORLD, "world"); }

// What rank r holds at i: different everywhere and small enough to be exact in any type.
int value(int r, int i) { return (7 * r + 3 * i) % 23; }

template <class T>
std::vector<T> values(int r, int count) {
  std::vector<T> result;
  for (int i = 0; i < count; ++i) result.push_back(static_cast<T>(value(r, i)));
  return result;
}

template <class T>
bool holds(const T& actual, int expected) {
  return static_cast<double>(actual) == static_cast<double>(expected);
}

}  // namespace

TEMPLATE_TEST_CASE("all_reduce gives every rank the sum, the largest and the smallest", "", float,
                   double, bf16, std::int32_t, std::int64_t, std::uint64_t, std::uint8_t) {
  const Communicator comm = world();
  const int count = GENERATE(0, 1, 5, 3000);
  const ReduceOp op = GENERATE(ReduceOp::sum, ReduceOp::max, ReduceOp::min);
  auto data = values<TestType>(comm.rank(), count);
  comm.all_reduce("values", std::span<TestType>(data), op);
  int num_wrong = 0;
  for (int i = 0; i < count; ++i) {
    int expected = value(0, i);
    for (int r = 1; r < comm.size(); ++r) {
      if (op == ReduceOp::sum) expected += value(r, i);
      if (op == ReduceOp::max) expected = std::max(expected, value(r, i));
      if (op == ReduceOp::min) expected = std::min(expected, value(r, i));
    }
    if (!holds(data[static_cast<std::size_t>(i)], expected)) ++num_wrong;
  }
  CHECK(num_wrong == 0);
}

TEMPLATE_TEST_CASE("reduce_scatter gives each rank the sum of its block", "", float, double, bf16,
                   std::int64_t) {
  const Communicator comm = world();
  const int count = GENERATE(0, 1, 4, 1000);
  const auto all = values<TestType>(comm.rank(), count * comm.size());
  std::vector<TestType> mine(static_cast<std::size_t>(count));
  comm.reduce_scatter("values", std::span<const TestType>(all), std::span<TestType>(mine));
  int num_wrong = 0;
  for (int i = 0; i < count; ++i) {
    int expected = 0;
    for (int r = 0; r < comm.size(); ++r) expected += value(r, comm.rank() * count + i);
    if (!holds(mine[static_cast<std::size_t>(i)], expected)) ++num_wrong;
  }
  CHECK(num_wrong == 0);
  CHECK(all == values<TestType>(comm.rank(), count * comm.size()));
}

TEMPLATE_TEST_CASE("all_gather gives every rank all blocks in rank order", "", float, bf16, char,
                   std::int32_t) {
  const Communicator comm = world();
  const int count = GENERATE(0, 1, 6, 2000);
  const bool in_place = GENERATE(false, true);
  auto mine = values<TestType>(comm.rank(), count);
  std::vector<TestType> all(static_cast<std::size_t>(count * comm.size()));
  std::span<const TestType> part = mine;
  if (in_place) {
    std::copy(mine.begin(), mine.end(), all.begin() + comm.rank() * count);
    part = std::span<const TestType>(all).subspan(static_cast<std::size_t>(comm.rank() * count),
                                                  static_cast<std::size_t>(count));
  }
  comm.all_gather("values", part, std::span<TestType>(all));
  int num_wrong = 0;
  for (int r = 0; r < comm.size(); ++r) {
    for (int i = 0; i < count; ++i) {
      const TestType& actual = all[static_cast<std::size_t>(r * count + i)];
      if (!holds(actual, value(r, i))) ++num_wrong;
    }
  }
  CHECK(num_wrong == 0);
}

TEST_CASE("all_to_all hands block r of the sender to rank r") {
  const Communicator comm = world();
  const int count = GENERATE(0, 1, 700);
  std::vector<float> send, receive(static_cast<std::size_t>(count * comm.size()));
  for (int r = 0; r < comm.size(); ++r) {
    for (int i = 0; i < count; ++i)
      send.push_back(static_cast<float>(100 * comm.rank() + 10 * r + i));
  }
  comm.all_to_all("blocks", std::span<const float>(send), std::span<float>(receive));
  int num_wrong = 0;
  for (int r = 0; r < comm.size(); ++r) {
    for (int i = 0; i < count; ++i) {
      const float expected = static_cast<float>(100 * r + 10 * comm.rank() + i);
      if (receive[static_cast<std::size_t>(r * count + i)] != expected) ++num_wrong;
    }
  }
  CHECK(num_wrong == 0);
}

TEST_CASE("all_to_all_v moves blocks of any length, empty ones included") {
  const Communicator comm = world();
  const int step = GENERATE(0, 1, 900);
  // Rank a sends ((a + 2 b) % 3) * step elements to rank b.
  const auto length = [&](int a, int b) { return std::int64_t{(a + 2 * b) % 3 * step}; };
  std::vector<std::int64_t> send_counts, receive_counts;
  std::vector<bf16> send, expected;
  for (int r = 0; r < comm.size(); ++r) {
    send_counts.push_back(length(comm.rank(), r));
    receive_counts.push_back(length(r, comm.rank()));
    send.insert(send.end(), static_cast<std::size_t>(send_counts.back()),
                bf16(10 * comm.rank() + r));
    expected.insert(expected.end(), static_cast<std::size_t>(receive_counts.back()),
                    bf16(10 * r + comm.rank()));
  }
  std::vector<bf16> receive(expected.size());
  comm.all_to_all_v("tokens", std::span<const bf16>(send),
                    std::span<const std::int64_t>(send_counts), std::span<bf16>(receive),
                    std::span<const std::int64_t>(receive_counts));
  CHECK(receive == expected);
}

TEST_CASE("broadcast gives every rank the root's data") {
  const Communicator comm = world();
  for (int root = 0; root < comm.size(); ++root) {
    auto data = values<double>(comm.rank(), 33);
    comm.broadcast("values", std::span<double>(data), root);
    CHECK(data == values<double>(root, 33));
    const std::string text(static_cast<std::size_t>(1000 * comm.rank()),
                           static_cast<char>('a' + comm.rank()));
    CHECK(comm.broadcast_string("text", text, root) ==
          std::string(static_cast<std::size_t>(1000 * root), static_cast<char>('a' + root)));
  }
}

TEST_CASE("several operations may be in flight and end in any order") {
  const Communicator comm = world();
  const auto mine = values<float>(comm.rank(), 500);
  std::vector<float> first(mine.size() * static_cast<std::size_t>(comm.size())), second = first;
  const std::vector<float> ones(first.size(), 1.0f);
  std::vector<float> sums(mine.size());
  Request a = comm.start_all_gather("first", std::span<const float>(mine), std::span<float>(first));
  Request b =
      comm.start_reduce_scatter("sums", std::span<const float>(ones), std::span<float>(sums));
  Request c =
      comm.start_all_gather("second", std::span<const float>(mine), std::span<float>(second));
  comm.barrier("in between");
  c.wait();
  b.wait();
  a.wait();
  a.wait();
  CHECK_FALSE(a.pending());
  CHECK(first == second);
  CHECK(first.back() == static_cast<float>(value(comm.size() - 1, 499)));
  CHECK(sums == std::vector<float>(mine.size(), static_cast<float>(comm.size())));
}

TEST_CASE("a bf16 sum is the float sum rounded to the nearest even") {
  const Communicator comm = world();
  if (comm.size() != 2) return;
  // 1 + 2^-8 lies half way between 1 and the next bf16, 1 + 3 x 2^-8 between odd and even above.
  std::vector<bf16> data = comm.rank() == 0 ? std::vector<bf16>{1.0f, 1.0078125f, 3e38f}
                                            : std::vector<bf16>{0.00390625f, 0.00390625f, 3e38f};
  comm.all_reduce("halves", std::span<bf16>(data), ReduceOp::sum);
  CHECK(data[0].bits == 0x3f80);
  CHECK(data[1].bits == 0x3f82);
  CHECK(data[2].bits == 0x7f80);
}

TEST_CASE("reduce_scatter adds in rank order, whoever owns the element") {
  const Communicator comm = world();
  // 1e8 + 1 - 1e8 in float depends on the order: the sum in rank order is the reference.
  const auto part = [](int r) { return r == 0 ? 1e8f : (r == 1 ? 1.0f : -1e8f); };
  const std::size_t block = 300000;  // several pieces
  const std::vector<float> all(block * static_cast<std::size_t>(comm.size()), part(comm.rank()));
  std::vector<float> mine(block);
  comm.reduce_scatter("parts", std::span<const float>(all), std::span<float>(mine));
  float expected = part(0);
  for (int r = 1; r < comm.size(); ++r) expected += part(r);
  CHECK(mine == std::vector<float>(block, expected));
}

TEST_CASE("a bf16 reduce_scatter rounds once, after the last addition") {
  const Communicator comm = world();
  if (comm.size() != 3) return;
  // Alone, each 2^-8 would be rounded away; the two together reach the next bf16.
  const bf16 part = comm.rank() == 0 ? 1.0f : 0.00390625f;
  const std::vector<bf16> all(3, part);
  bf16 mine(0.0f);
  comm.reduce_scatter("parts", std::span<const bf16>(all), std::span<bf16>(&mine, 1));
  CHECK(mine.bits == 0x3f81);
}

TEST_CASE("traffic counts the bytes that came from other ranks") {
  const Communicator comm = world();
  const std::int64_t p = comm.size();
  std::vector<float> all(static_cast<std::size_t>(12 * p)), mine(12);
  comm.all_gather("g", std::span<const float>(mine), std::span<float>(all));
  comm.reduce_scatter("r", std::span<const float>(all), std::span<float>(mine));
  comm.all_reduce("a", std::span<float>(mine), ReduceOp::sum);
  std::vector<float> other(all.size());
  comm.all_to_all("t", std::span<const float>(all), std::span<float>(other));
  CHECK(comm.traffic().all_gather.logical_bytes == (p - 1) * 48);
  CHECK(comm.traffic().reduce_scatter.logical_bytes == (p - 1) * 48);
  CHECK(comm.traffic().all_reduce.logical_bytes == 2 * (p - 1) * 48 / p);
  CHECK(comm.traffic().all_to_all.logical_bytes == (p - 1) * 48);
}

TEST_CASE("split keeps the order of ranks and remembers who they were") {
  const Communicator comm = world();
  const Communicator parity = comm.split(comm.rank() % 2, "parity");
  std::vector<int> expected;
  for (int r = comm.rank() % 2; r < comm.size(); r += 2) expected.push_back(r);
  CHECK(parity.world_ranks() == expected);
  CHECK(parity.rank() == comm.rank() / 2);
  const Communicator alone = parity.split(parity.rank(), "alone");
  CHECK(alone.world_ranks() == std::vector<int>{comm.rank()});
  const Communicator node = comm.split_node("node");
  CHECK(node.size() == comm.size());
}

TEST_CASE("a moved communicator works and its old name is empty") {
  Communicator comm = world();
  Communicator moved = std::move(comm);
  CHECK(moved.all_reduce_value<std::int32_t>("ones", 1, ReduceOp::sum) == moved.size());
  CHECK(comm.mpi() == MPI_COMM_NULL);
  comm = std::move(moved);
  CHECK(comm.all_gather_value<std::int32_t>("ranks", comm.rank()).back() == comm.size() - 1);
}

TEST_CASE("An operation in flight goes on while the rank computes and polls") {
  const Communicator comm = world();
  const std::size_t count = (std::size_t{24} << 20) / sizeof(float);  // several pieces
  const std::vector<float> all(count * static_cast<std::size_t>(comm.size()), 1.0f);
  std::vector<float> mine(count, -1.0f);
  Request request = comm.start_reduce_scatter("sums", std::span(all), std::span(mine));
  const volatile float& last = mine.back();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (last < 0.0f && std::chrono::steady_clock::now() < end) poll_now_and_then();
  CHECK(last == static_cast<float>(comm.size()));
  comm.barrier("all have theirs");
  request.wait();
}

TEST_CASE("An error that a poll meets is that of the wait") {
  const Communicator comm = world();
  if (comm.size() < 2) return;
  // Rank 0 sends nothing where its neighbour expects one element.
  std::vector<std::int64_t> counts(static_cast<std::size_t>(comm.size()), 1), sent = counts;
  if (comm.rank() == 0) sent[1] = 0;
  const std::vector<float> rows(counts.size() - (comm.rank() == 0 ? 1 : 0), 1.0f);
  std::vector<float> receive(counts.size());
  Request request =
      comm.start_all_to_all_v("rows", std::span(rows), std::span<const std::int64_t>(sent),
                              std::span(receive), std::span<const std::int64_t>(counts));
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  while (std::chrono::steady_clock::now() < end) poll_now_and_then();
  comm.barrier("goes on before the error is told");
  std::string message;
  try {
    request.wait();
  } catch (const Error& error) {
    message = error.what();
  }
  const std::string expected = fmt::format(
      "all_to_all_v 'rows' on world, rank 1 of {}: rank 0 sent 0 elements where 1 were expected",
      comm.size());
  CHECK(message.substr(0, expected.size()) == (comm.rank() == 1 ? expected : ""));
}
