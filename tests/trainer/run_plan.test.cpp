// SPDX-License-Identifier: Apache-2.0
// What --dry-run foretells of a load is what the load then does. (Memory: tests/study.)
#include <algorithm>
#include <catch2/catch.hpp>
#include <tessera/trainer/run_plan.hpp>

#include "support/collective_check.hpp"

namespace tessera::trainer {

TEST_CASE("A plan foretells what each rank owns and reads") {
  const std::string name = GENERATE("wide", "deepseek_v3", "llama", "mxfp4");
  const auto path = std::filesystem::path(TESSERA_GOLDEN_DIRECTORY) / name;
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  for (int expert = 1; expert <= world.size(); ++expert) {
    if (world.size() % expert != 0) continue;
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    ModelSource source = open_model(grid.world(), path, {});
    const std::vector<RankPlan> plans = plan_run(grid, source);
    CHECK(std::ssize(plans) == grid.world().size());
    auto store = make_store<float>(grid, source.config);
    const checkpoint::LoadReport report = load_parameters(grid, source, store);
    INFO(name << ", " << grid.describe());
    const RankPlan& plan = plans[static_cast<std::size_t>(grid.world().rank())];
    CHECK(plan.read_bytes == report.planned_bytes);
    CHECK(plan.read_bytes == report.read_bytes);
    std::int64_t num_parameters = 0;
    for (const RankPlan& each : plans) num_parameters += each.num_parameters;
    CHECK(num_parameters == model::num_parameters(source.config));
  }
}

TEST_CASE("The table of a plan shows sixteen ranks and the sum of all") {
  const std::string text = describe(std::vector<RankPlan>(40, RankPlan{1000, 1 << 20}));
  CHECK(std::count(text.begin(), text.end(), '\n') == 1 + 16 + 2);
  CHECK(text.find("(24 more)") != std::string::npos);
  CHECK(text.find("40000") != std::string::npos);  // parameters of all
}

}  // namespace tessera::trainer
