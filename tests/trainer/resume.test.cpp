// SPDX-License-Identifier: Apache-2.0
// A checkpoint knows no grid: saved on any (W, E) it is read on any other, bit for bit, and the
// training goes on at the same losses. One launch of six ranks; smaller grids use the first ranks
// of it.
#include <catch2/catch.hpp>
#include <optional>
#include <tessera/trainer/checkpoint_directory.hpp>
#include <tessera/trainer/model_state.hpp>
#include <tessera/trainer/training_run.hpp>

#include "base/error.hpp"
#include "base/log.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"
#include "trainer/elastic.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;
using test::check_equal, test::copy_checkpoint, test::GridShape, test::losses, test::on_grid;

const fs::path model_path = fs::path(TESSERA_GOLDEN_DIRECTORY) / "small";

const test::Groups groups{
    {"parameters", 37}, {"optimizer/exp_avg", 37}, {"optimizer/exp_avg_sq", 37}};
const std::vector<GridShape> shapes{{1, 1}, {2, 1}, {2, 2}, {3, 3}, {4, 1},
                                    {4, 2}, {4, 4}, {6, 2}, {6, 3}};

TrainingOptions options(const fs::path& output, std::int64_t steps) {
  TrainingOptions options;
  options.model = model_path;
  options.data = model_path / "tokens.npy";
  options.output = output;
  options.num_steps = steps;
  options.total_steps = 13;
  options.batch = 3;
  options.log_every = 1000;
  options.optimizer.epsilon = 1e-4;
  return options;
}

}  // namespace

TEST_CASE("A checkpoint of any grid resumes on any other") {
  set_log_level(LogLevel::warning);
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world);
  const StopRequest stop;
  std::vector<double> uninterrupted;
  on_grid(world, shapes[0], [&](const comm::ProcessGrid& grid) {
    run_training(grid, options(directory / "whole", 13), stop);
    uninterrupted = losses(directory / "whole");
  });
  for (const GridShape& from : shapes) {
    on_grid(world, from, [&](const comm::ProcessGrid& grid) {
      run_training(grid, options(directory / from.name(), 3), stop);
    });
  }
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const fs::path saved = checkpoint_path(directory / shapes[i].name(), 3);
    for (std::size_t j = 0; j < shapes.size(); ++j) {
      const std::string pair = shapes[i].name() + "-on-" + shapes[j].name();
      INFO(pair);
      on_grid(world, shapes[j], [&](const comm::ProcessGrid& grid) {
        copy_checkpoint(grid, saved, directory / "copy.h5");
        if (grid.world().rank() == 0) check_equal(saved, directory / "copy.h5", groups);
      });
      if ((j + shapes.size() - i) % shapes.size() > 2)
        continue;  // two other grids for each, and its own
      on_grid(world, shapes[j], [&](const comm::ProcessGrid& grid) {
        TrainingOptions resumed = options(directory / pair, 13);
        resumed.resume = directory / shapes[i].name();
        run_training(grid, resumed, stop);
        if (grid.world().rank() != 0) return;
        const std::vector<double> next = losses(directory / pair);
        REQUIRE(next.size() == 10);
        CHECK_CLOSE(next, std::vector<double>(uninterrupted.begin() + 3, uninterrupted.end()), 1e-6,
                    0.0);
      });
    }
  }
}

TEST_CASE("A run whose gradient is lost for good ends with an error and no checkpoint") {
  set_log_level(LogLevel::error);
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {2});
  const test::TemporaryDirectory directory(grid.world());
  TrainingOptions lost = options(directory / "lost", 13);
  lost.schedule.peak = 1e30;
  ErrorKind kind = ErrorKind::internal;
  try {
    run_training(grid, lost, StopRequest());
  } catch (const Error& error) {
    kind = error.kind();
  }
  CHECK(kind == ErrorKind::numeric);
  CHECK(!fs::exists(directory / "lost" / "latest"));
  grid.world().barrier("checked");
}

TEST_CASE(
    "A run is not resumed with another optimizer, nor as the run before it in its directory") {
  set_log_level(LogLevel::error);
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {3});
  const test::TemporaryDirectory directory(grid.world());
  TrainingOptions run = options(directory / "run", 1);
  run_training(grid, run, StopRequest());
  TrainingOptions resumed = options(directory / "run", 2);
  resumed.resume = directory / "run";
  resumed.optimizer.kind = zero3::OptimizerKind::sgd;
  CHECK_THROWS_AS(run_training(grid, resumed, StopRequest()), Error);
  run.num_steps = 13;
  run.schedule.peak = 1e30;  // ends before its first save
  CHECK_THROWS_AS(run_training(grid, run, StopRequest()), Error);
  CHECK_THROWS_AS(resume_path(grid.world(), directory / "run"), Error);
  grid.world().barrier("checked");
}

TEST_CASE("A run ends where its options say") {
  CHECK(last_step(10, 10, 0) == 10);
  CHECK(last_step(20, 20, 10) == 20);  // go on to step 20
  CHECK(last_step(10, 20, 10) == 20);  // step 10 is there: ten more
  CHECK(last_step(10, 15, 10) == 15);  // never past the schedule
  CHECK(last_step(10, 10, 10) == 10);  // done
}

}  // namespace tessera::trainer
