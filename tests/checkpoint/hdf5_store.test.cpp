// SPDX-License-Identifier: Apache-2.0
// Tessera files written on one grid and read on another.
#include "hdf5_fixture.hpp"
#include "same_error.hpp"
#include "support/temporary_directory.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;
using comm::ProcessGrid;
using test::Checkpoint;

TEST_CASE("what one grid writes, every other grid reads bit for bit") {
  const Checkpoint checkpoint;
  for (const int writing : test::expert_axes()) {
    const ProcessGrid writers(MPI_COMM_WORLD, {writing});
    const test::TemporaryDirectory directory(writers.world());
    checkpoint.save(writers, directory / "model.h5");
    for (const int reading : test::expert_axes()) {
      const ProcessGrid readers(MPI_COMM_WORLD, {reading});
      LoadReport report;
      CHECK(checkpoint.compare(readers, directory / "model.h5", report) == "");
      CHECK(report.planned_bytes == report.read_bytes);
      CHECK(report.exchanged_bytes == 0);
      CHECK(readers.world().all_reduce_value("read bytes", report.read_bytes,
                                             comm::ReduceOp::sum) == checkpoint.file_bytes());
    }
  }
}

TEST_CASE("a file written by many ranks is read by one, and the other way round") {
  const Checkpoint checkpoint;
  const ProcessGrid grid(MPI_COMM_WORLD, {1}), alone(MPI_COMM_SELF, {1});
  const test::TemporaryDirectory directory(grid.world());
  checkpoint.save(grid, directory / "many.h5");
  LoadReport report;
  CHECK(checkpoint.compare(alone, directory / "many.h5", report) == "");
  CHECK(report.read_bytes == checkpoint.file_bytes());
  const auto own = directory / fmt::format("one-{}.h5", grid.world().rank());
  checkpoint.save(alone, own);
  grid.world().barrier("files are there");
  LoadReport again;
  CHECK(checkpoint.compare(grid, directory / "one-0.h5", again) == "");
}

TEST_CASE(
    "staging memory stays within its bound however small, with ranks in need of unequal rounds") {
  const Checkpoint checkpoint;
  const ProcessGrid grid(MPI_COMM_WORLD, {test::expert_axes().back()});
  const test::TemporaryDirectory directory(grid.world());
  checkpoint.save(grid, directory / "model.h5");
  for (const std::int64_t buffer_bytes : {1000, 50000}) {
    LoadReport report;
    CHECK(checkpoint.compare(grid, directory / "model.h5", report, {buffer_bytes}) == "");
    CHECK(report.peak_buffer_bytes <= buffer_bytes);
    CHECK(report.peak_buffer_bytes > 0);
  }
}

TEST_CASE("ranks without an expert take part in writing and reading") {
  Checkpoint checkpoint;
  checkpoint.expert = test::expert_unit(2);
  const ProcessGrid grid(MPI_COMM_WORLD, {test::expert_axes().back()});
  const test::TemporaryDirectory directory(grid.world());
  checkpoint.save(grid, directory / "model.h5");
  LoadReport report;
  CHECK(checkpoint.compare(grid, directory / "model.h5", report) == "");
}

TEST_CASE("the training state and embedded files come back verbatim, from rank 0's copy") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  Checkpoint checkpoint;
  checkpoint.state.training_json = "{\"text\": \"" + std::string(200000, 'x') + "\"}";
  checkpoint.files["empty.txt"] = "";
  checkpoint.files["tokenizer.model"] = std::string("\0\xff\n\0", 4);
  const Checkpoint written = checkpoint;
  if (grid.world().rank() != 0) {
    checkpoint.files.clear();
    checkpoint.state = {};
  }
  checkpoint.save(grid, directory / "model.h5");
  const auto source = Hdf5Source::open(grid.world(), directory / "model.h5");
  CHECK(source->files() == written.files);
  CHECK(source->config_json() == written.files.at("config.json"));
  CHECK(source->state().step == 17);
  CHECK(source->state().optimizer_steps == 16);
  CHECK(source->state().data_position == 544);
  CHECK(source->state().seed == 18446744073709551557u);
  CHECK(source->state().optimizer == "adamw");
  CHECK(source->state().training_json == written.state.training_json);
}

TEST_CASE("a source lists the parameters alone, with their dtypes and shapes") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Checkpoint checkpoint;
  checkpoint.save(grid, directory / "model.h5");
  const auto source = Source::open(grid.world(), directory / "model.h5");
  CHECK(source->kind() == std::string("Tessera file"));
  CHECK(source->tensors().size() == 8);
  const TensorInfo* tensor = source->find("layers.0.down_proj");
  REQUIRE_ALL(grid.world(), tensor != nullptr);
  CHECK(tensor->dtype == Dtype::f16);
  CHECK(tensor->shape == Shape{5, 13, 11});
  CHECK(tensor->file == "model.h5");
  CHECK(source->find("nothing") == nullptr);
}

TEST_CASE("a parameter or optimizer state that the file has not, or in another shape, is named") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Checkpoint checkpoint;
  checkpoint.save(grid, directory / "model.h5");
  const auto source = Hdf5Source::open(grid.world(), directory / "model.h5");
  const auto load = [&](const std::string& group, Parameter parameter) {
    return test::same_error(grid.world(), ErrorKind::keys, [&] {
      source->load_group(grid, group, std::span(&parameter, 1), {}, {}, {});
    });
  };
  CHECK_THAT(load("parameters", {.name = "absent", .shape = {3}}), Contains("/parameters/absent"));
  CHECK_THAT(load("optimizer/exp_avg_sq", {.name = "norm.weight", .shape = {35}}),
             Contains("/optimizer/exp_avg_sq/norm.weight"));
  CHECK_THAT(load("parameters", {.name = "norm.weight", .shape = {36}}),
             Contains("[35]") && Contains("[36]"));
}
