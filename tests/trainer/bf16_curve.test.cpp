// SPDX-License-Identifier: Apache-2.0
// Training in bf16 with f32 master weights follows the curve of f32.
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tessera/trainer/training_run.hpp>

#include "base/log.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;

std::vector<double> losses_of_run(const comm::ProcessGrid& grid, const fs::path& output,
                                  Dtype dtype) {
  const fs::path model = fs::path(TESSERA_GOLDEN_DIRECTORY) / "small";
  TrainingOptions options;
  options.model = model;
  options.data = model / "tokens.npy";
  options.output = output;
  options.num_steps = 40;
  options.batch = 4;
  options.log_every = 1000;
  options.schedule.peak = 3e-3;
  options.dtype = dtype;
  run_training(grid, options, StopRequest());
  std::ifstream file(output / "metrics.jsonl");
  std::vector<double> losses;
  for (std::string line; std::getline(file, line);) {
    losses.push_back(nlohmann::json::parse(line).at("loss").get<double>());
  }
  return losses;
}

}  // namespace

TEST_CASE("The training curve of bf16 follows that of f32") {
  set_log_level(LogLevel::warning);
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {size});
  const test::TemporaryDirectory directory(grid.world());
  const auto f32 = losses_of_run(grid, directory / "f32", Dtype::f32);
  const auto bf16 = losses_of_run(grid, directory / "bf16", Dtype::bf16);
  if (grid.world().rank() == 0) {
    REQUIRE(f32.size() == 40);
    REQUIRE(bf16.size() == 40);
    CHECK(f32.back() < 0.7 * f32.front());  // it does learn
    for (std::size_t i = 0; i < f32.size(); ++i) {
      CHECK(bf16[i] == Approx(f32[i]).epsilon(0.03).margin(0.02 * f32.front()));
    }
  }
  grid.world().barrier("compared");
}

}  // namespace tessera::trainer
