// SPDX-License-Identifier: Apache-2.0
// Exports of known values by every grid, read back byte for byte with plain loops.
#include "tessera/checkpoint/hugging_face_writer.hpp"

#include "exported_model.hpp"
#include "support/temporary_directory.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using comm::ProcessGrid;
using test::expert_axes;
using Model = test::ExportedModel;

namespace fs = std::filesystem;

TEST_CASE("every grid writes each tensor in its place, type and orientation") {
  Model model;
  model.keeps_mxfp4 = GENERATE(true, false);
  ExportOptions options;
  options.experts = model.keeps_mxfp4 ? ExpertFormat::as_imported : ExpertFormat::bf16;
  options.max_shard_bytes = GENERATE(5'000'000'000, 2000);
  if (!model.keeps_mxfp4) model.origins["fused"] = model.origins["up_bias"] = {};
  for (const int axis : expert_axes()) {
    const ProcessGrid grid(MPI_COMM_WORLD, {axis});
    const test::TemporaryDirectory directory(grid.world());
    const std::int64_t written = grid.world().all_reduce_value(
        "written", test::save(grid, model, directory / "out", options), comm::ReduceOp::sum);
    if (grid.world().rank() == 0) {
      INFO("expert axis " << axis);
      const test::Tensors tensors = test::read_tensors(directory / "out");
      CHECK(test::differing(tensors, model.expected()) == "");
      std::int64_t bytes = 0;
      for (const auto& [name, tensor] : tensors) bytes += std::ssize(tensor.bytes);
      CHECK(written == bytes);
      CHECK(test::read_file(directory / "out/tokenizer.json") == model.files["tokenizer.json"]);
      CHECK(fs::exists(directory / "out/model.safetensors.index.json") ==
            (options.max_shard_bytes == 2000));
      CHECK(fs::exists(directory / "out/model.safetensors") == (options.max_shard_bytes != 2000));
      CHECK_FALSE(fs::exists(directory / "out.partial"));
    }
    grid.world().barrier("compared");
  }
}

TEST_CASE("equal content gives equal files on every grid") {
  const ProcessGrid grid(MPI_COMM_WORLD, {expert_axes().back()}), alone(MPI_COMM_SELF, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Model model;
  test::save(grid, model, directory / "a", {.max_shard_bytes = 3000});
  if (grid.world().rank() == 0) {
    test::save(alone, model, directory / "b", {.max_shard_bytes = 3000});
    for (const auto& entry : fs::directory_iterator(directory / "b")) {
      INFO(entry.path());
      CHECK(test::read_file(entry.path()) ==
            test::read_file(directory / "a" / entry.path().filename()));
    }
  }
  grid.world().barrier("compared");
}

TEST_CASE("an expert larger than the buffer is turned in pieces") {
  for (const int axis : expert_axes()) {
    const ProcessGrid grid(MPI_COMM_WORLD, {axis});
    const test::TemporaryDirectory directory(grid.world());
    Model model;
    model.dense.resize(1);
    const std::int64_t experts = axis;
    model.expert = {
        {.name = "large", .shape = {experts, 2061, 2101}, .is_expert = true, .transposed = true}};
    test::save(grid, model, directory / "out");
    if (grid.world().rank() == 0)
      CHECK(test::differing(test::read_tensors(directory / "out"), model.expected()) == "");
    grid.world().barrier("compared");
  }
}
