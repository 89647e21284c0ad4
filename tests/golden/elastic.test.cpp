// SPDX-License-Identifier: Apache-2.0
// A training checkpoint of a DeepSeek model (latent attention, correction biases, groups) and of
// one that came as MXFP4, saved on (4,2), is the same on (3,1), (6,3) and (1,1): parameters,
// buffers, moments, scales, fingerprints and data position bit for bit, and the losses that follow.
// Shards that were not trained become the Hugging Face directory that they came from.
#include "trainer/elastic.hpp"

#include <catch2/catch.hpp>
#include <tessera/trainer/checkpoint_directory.hpp>
#include <tessera/trainer/model_state.hpp>
#include <tessera/trainer/training_run.hpp>

#include "base/log.hpp"
#include "safetensors_copy.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;
using test::check_equal, test::copy_checkpoint, test::GridShape, test::losses, test::on_grid;

TrainingOptions options(const fs::path& model, const fs::path& output, std::int64_t steps) {
  TrainingOptions options;
  options.model = model;
  options.data = model / "tokens.npy";
  options.output = output;
  options.num_steps = steps;
  options.total_steps = 5;
  options.batch = 2;
  options.log_every = 1000;
  options.optimizer.epsilon = 1e-4;
  return options;
}

/// Every parameter's fingerprint. collective over world.
void check_same_fingerprints(const comm::Communicator& world, const fs::path& a,
                             const fs::path& b) {
  const auto first = checkpoint::Source::open(world, a),
             second = checkpoint::Source::open(world, b);
  for (const checkpoint::TensorInfo& tensor : first->tensors()) {
    const auto fingerprint = [&](const checkpoint::Source& source) {
      const auto* found = dynamic_cast<const checkpoint::Hdf5Source&>(source).fingerprint(
          "parameters", tensor.name);
      return found == nullptr ? checkpoint::TensorFingerprint() : *found;
    };
    INFO(tensor.name);
    CHECK(!fingerprint(*first).experts.empty());
    CHECK(fingerprint(*first).experts == fingerprint(*second).experts);
    CHECK(fingerprint(*first).num_elements == fingerprint(*second).num_elements);
  }
}

/// Loads a Hugging Face directory and writes it again, straight from the shards.
void copy_directory(const comm::ProcessGrid& grid, const fs::path& from, const fs::path& to) {
  ModelSource model = open_model(grid.world(), from, {});
  auto store = make_store<float>(grid, model.config);
  load_parameters(grid, model, store);
  checkpoint::ExportOptions options;
  options.overwrite = true;
  save_hugging_face(grid, store, to, model, 0, options);
}

}  // namespace

TEST_CASE("A DeepSeek or MXFP4 checkpoint of one grid resumes on any other") {
  set_log_level(LogLevel::warning);
  const std::string name = GENERATE("deepseek_v3", "mxfp4");
  const fs::path model = fs::path(TESSERA_GOLDEN_DIRECTORY) / name;
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world);
  const StopRequest stop;
  std::vector<double> uninterrupted;
  on_grid(world, {4, 2}, [&](const comm::ProcessGrid& grid) {
    run_training(grid, options(model, directory / "whole", 5), stop);
    uninterrupted = losses(directory / "whole");
    run_training(grid, options(model, directory / "begun", 2), stop);
  });
  const fs::path saved = checkpoint_path(directory / "begun", 2);
  const bool is_mxfp4 = name == "mxfp4";
  // DeepSeek's two correction biases are not trained.
  const std::size_t num_trained = is_mxfp4 ? 37 : 45;
  test::Groups groups{{"parameters", is_mxfp4 ? 37 : 47},
                      {"optimizer/exp_avg", num_trained},
                      {"optimizer/exp_avg_sq", num_trained}};
  if (is_mxfp4) groups.emplace_back("mxfp4_scales", 4);
  for (const GridShape shape : {GridShape{3, 1}, GridShape{6, 3}, GridShape{1, 1}}) {
    INFO(name << " on " << shape.name());
    on_grid(world, shape, [&](const comm::ProcessGrid& grid) {
      copy_checkpoint(grid, saved, directory / "copy.h5");
      if (grid.world().rank() == 0) check_equal(saved, directory / "copy.h5", groups);
      check_same_fingerprints(grid.world(), saved, directory / "copy.h5");
      TrainingOptions resumed = options(model, directory / shape.name(), 5);
      resumed.resume = directory / "begun";
      run_training(grid, resumed, stop);
      if (grid.world().rank() != 0) return;
      const std::vector<double> next = losses(directory / shape.name());
      CHECK(next.size() == 3);
      CHECK_CLOSE(next, std::vector<double>(uninterrupted.begin() + 2, uninterrupted.end()), 1e-6,
                  0.0);
    });
  }
}

TEST_CASE("Shards as they were loaded export every tensor byte for byte, on any grid") {
  set_log_level(LogLevel::warning);
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world);
  for (const char* name : {"mxfp4", "olmoe_4", "deepseek_v3"}) {
    const fs::path model = fs::path(TESSERA_GOLDEN_DIRECTORY) / name;
    for (const GridShape shape : {GridShape{4, 2}, GridShape{3, 3}, GridShape{6, 2}}) {
      INFO(name << " on " << shape.name());
      on_grid(world, shape, [&](const comm::ProcessGrid& grid) {
        copy_directory(grid, model, directory / "copy");
        if (grid.world().rank() != 0) return;
        const test::SafetensorsCopy original(model), copy(directory / "copy");
        CHECK(original.tensors.size() > 15);
        CHECK((original.tensors == copy.tensors));
      });
    }
  }
}

}  // namespace tessera::trainer
