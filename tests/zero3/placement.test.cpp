// SPDX-License-Identifier: Apache-2.0
// Placement refuses what stock ZeRO-3 does silently: different experts taken for replicas.
#include <catch2/catch.hpp>
#include <tessera/zero3/placement.hpp>
#include <tessera/zero3/unit.hpp>

#include "base/error.hpp"
#include "support/collective_check.hpp"

namespace tessera::zero3 {
namespace {

std::string refusal(const comm::ProcessGrid& grid, const UnitSpec& spec) {
  try {
    const Unit unit(spec);
  } catch (const Error& error) {
    return error.what();
  }
  grid.world().barrier("not refused");
  return "";
}

}  // namespace

TEST_CASE("Experts are placed over the ranks that hold the same ones") {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert != 0) continue;
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    const Placement placement = Placement::expert(grid, 8);
    CHECK(placement.group().size() == size / expert);
    CHECK_NOTHROW(placement.verify("layers.0.expert"));
    const std::int64_t held = placement.experts().count();
    CHECK(grid.expert().all_reduce_value("held", held, comm::ReduceOp::sum) == 8);
    CHECK(Placement::dense(grid).group().size() == size);
  }
}

TEST_CASE("An expert unit on a group with different experts is refused by name on all ranks") {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size < 2) return;
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {size % 2 == 0 ? 2 : size});
  const ExpertRange mine = Placement::expert(grid, 8).experts();
  const UnitSpec spec{"layers.0.expert", {{"w", {8, 4, 4}, true, true}}, {grid.world(), mine}};
  const std::string text = refusal(grid, spec);
  CHECK_SAME(grid.world(), text);
  CHECK(text.find("layers.0.expert") != std::string::npos);
  CHECK(text.find("holds experts [0, ") != std::string::npos);
  CHECK(text.find("grid.replica()") != std::string::npos);
}

}  // namespace tessera::zero3
