// SPDX-License-Identifier: Apache-2.0
// Counts beyond MPI's int, tried with a limit of seven elements in place of INT_MAX.
#include <catch2/catch.hpp>
#include <numeric>

#include "comm/collectives.hpp"
#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

constexpr std::int64_t kLimit = 7;

void complete(Collectives::Started operation) {
  while (!operation->test()) {
  }
}

struct World {
  MPI_Comm comm = MPI_COMM_WORLD;
  int rank = 0, size = 1;
  std::shared_ptr<Collectives> collectives = make_mpi_collectives(MPI_COMM_WORLD, kLimit);

  World() {
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
  }
};

double value(int rank, std::int64_t i) { return 1000.0 * rank + static_cast<double>(i); }

std::vector<double> values(int rank, std::int64_t count) {
  std::vector<double> result;
  for (std::int64_t i = 0; i < count; ++i) result.push_back(value(rank, i));
  return result;
}

}  // namespace

TEST_CASE("broadcast and all_reduce go in pieces") {
  const World w;
  const std::int64_t count = GENERATE(6, 7, 8, 21, 30);
  auto data = values(w.rank, count);
  complete(w.collectives->start_broadcast(data.data(), count, Dtype::f64, w.size - 1));
  CHECK(data == values(w.size - 1, count));
  auto sums = values(w.rank, count);
  complete(w.collectives->start_all_reduce(sums.data(), count, Dtype::f64, ReduceOp::max));
  CHECK(sums == values(w.size - 1, count));
}

TEST_CASE("all_gather goes in pieces, in place or not, and leaves what is between the blocks") {
  const World w;
  const std::int64_t count = GENERATE(2, 3, 7, 16);
  const bool in_place = GENERATE(false, true);
  const std::int64_t gap = GENERATE(0, 5);
  const auto mine = values(w.rank, count);
  std::vector<double> expected;
  for (int r = 0; r < w.size; ++r) {
    const auto block = values(r, count);
    expected.insert(expected.end(), block.begin(), block.end());
    expected.insert(expected.end(), static_cast<std::size_t>(gap), -1.0);
  }
  std::vector<double> all(expected.size(), -1.0);
  double* own = all.data() + w.rank * (count + gap);
  if (in_place) std::copy(mine.begin(), mine.end(), own);
  complete(w.collectives->start_all_gather(in_place ? own : mine.data(), count, all.data(),
                                           count + gap, Dtype::f64));
  CHECK(all == expected);
}

TEST_CASE("Pieces of two operations do not mix on ranks that differ in when they test") {
  const World w;
  constexpr std::int64_t count = 16;
  auto first = values(w.rank, count), second = values(w.rank + 100, count);
  const auto one = w.collectives->start_broadcast(first.data(), count, Dtype::f64, 0);
  if (w.rank % 2 == 1) {
    for (int i = 0; i < 1000; ++i) one->test();
  }
  complete(w.collectives->start_broadcast(second.data(), count, Dtype::f64, 0));
  while (!one->test()) {
  }
  CHECK(first == values(0, count));
  CHECK(second == values(100, count));
}

TEST_CASE("reduce_scatter goes in pieces") {
  const World w;
  const std::int64_t count = GENERATE(2, 3, 7, 16);
  const auto all = values(w.rank, count * w.size);
  std::vector<double> mine(static_cast<std::size_t>(count)), expected(mine.size());
  for (int r = 0; r < w.size; ++r) {
    for (std::int64_t i = 0; i < count; ++i) {
      expected[static_cast<std::size_t>(i)] += value(r, w.rank * count + i);
    }
  }
  complete(w.collectives->start_reduce_scatter(all.data(), mine.data(), count, Dtype::f64));
  CHECK(mine == expected);
}

TEST_CASE("all_to_all_v goes in pieces") {
  const World w;
  // Rank a sends 5 a + 3 b elements to rank b: 0, 3, 5, 6, 8, ... around the limit.
  std::vector<std::int64_t> send_counts, receive_counts;
  std::vector<double> send, expected;
  for (int r = 0; r < w.size; ++r) {
    send_counts.push_back(5 * w.rank + 3 * r);
    receive_counts.push_back(5 * r + 3 * w.rank);
    for (std::int64_t i = 0; i < send_counts.back(); ++i) send.push_back(value(10 * w.rank + r, i));
    for (std::int64_t i = 0; i < receive_counts.back(); ++i) {
      expected.push_back(value(10 * r + w.rank, i));
    }
  }
  std::vector<double> receive(expected.size());
  complete(w.collectives->start_all_to_all_v(send.data(), send_counts, receive.data(),
                                             receive_counts, Dtype::f64));
  CHECK(receive == expected);
}
