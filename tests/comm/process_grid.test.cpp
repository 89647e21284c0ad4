// SPDX-License-Identifier: Apache-2.0
#include "comm/process_grid.hpp"

#include <catch2/catch.hpp>

#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

int job_size() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

ErrorKind kind_of_failure(GridShape shape, std::string& text) {
  try {
    const ProcessGrid grid(MPI_COMM_WORLD, shape);
  } catch (const Error& error) {
    text = error.what();
    return error.kind();
  }
  return ErrorKind::internal;
}

}  // namespace

TEST_CASE("consecutive ranks form an expert group, equal expert ranks a replica group") {
  const int num_ranks = job_size();
  for (int expert = 1; expert <= num_ranks; ++expert) {
    if (num_ranks % expert != 0) continue;
    CAPTURE(expert);
    const ProcessGrid grid(MPI_COMM_WORLD, {.expert = expert});
    const int rank = grid.world().rank();
    CHECK(grid.world().size() == num_ranks);
    CHECK(grid.expert().size() == expert);
    CHECK(grid.replica().size() == num_ranks / expert);
    CHECK(grid.expert().rank() == rank % expert);
    CHECK(grid.replica().rank() == rank / expert);
    std::vector<int> neighbours, holders;
    for (int r = 0; r < expert; ++r) neighbours.push_back(rank / expert * expert + r);
    for (int r = rank % expert; r < num_ranks; r += expert) holders.push_back(r);
    CHECK(grid.expert().world_ranks() == neighbours);
    CHECK(grid.replica().world_ranks() == holders);
    CHECK(grid.node().size() == num_ranks);
  }
}

TEST_CASE("the sum over expert groups and then over replicas counts every rank once") {
  const int num_ranks = job_size();
  const ProcessGrid grid(MPI_COMM_WORLD, {.expert = num_ranks % 2 == 0 ? 2 : 1});
  const auto in_group = grid.expert().all_reduce_value<std::int32_t>("ones", 1, ReduceOp::sum);
  CHECK(grid.replica().all_reduce_value("groups", in_group, ReduceOp::sum) == num_ranks);
}

TEST_CASE("the grid describes itself in one line") {
  const int num_ranks = job_size();
  const ProcessGrid grid(MPI_COMM_WORLD, {.expert = num_ranks});
  const std::string ranks = num_ranks == 1 ? "1 rank" : std::to_string(num_ranks) + " ranks";
  CHECK(grid.describe() ==
        ranks + " = " + std::to_string(num_ranks) + " expert x 1 replica, 1 node");
}

TEST_CASE("an expert group size that does not divide the ranks is refused on all ranks alike") {
  const int num_ranks = job_size();
  const Communicator comm(MPI_COMM_WORLD, "test");
  for (const int expert : {0, -2, num_ranks + 1}) {
    std::string text;
    CAPTURE(expert);
    CHECK(kind_of_failure({.expert = expert}, text) == ErrorKind::usage);
    CHECK_SAME(comm, text);
    CHECK(text.find("choose one of 1") != std::string::npos);
  }
}

TEST_CASE("ranks that ask for different grids all learn of it") {
  const int num_ranks = job_size();
  if (num_ranks < 2) return;
  std::string text;
  const Communicator comm(MPI_COMM_WORLD, "test");
  CHECK(kind_of_failure({.expert = comm.rank() == 1 ? num_ranks : 1}, text) == ErrorKind::usage);
  CHECK_SAME(comm, text);
}
