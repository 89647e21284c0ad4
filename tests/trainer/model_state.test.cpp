// SPDX-License-Identifier: Apache-2.0
// Tensors that the user permits to be missing get first values that no grid changes; others are
// refused, and so is a tied matrix that repeats nothing.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <tessera/checkpoint/safetensors.hpp>
#include <tessera/trainer/model_state.hpp>

#include "base/error.hpp"
#include "golden/golden_file.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;

/// The golden model with some tensors under names that no model asks for.
fs::path model_without(const comm::Communicator& world, const fs::path& directory) {
  if (world.rank() == 0) {
    const fs::path golden = fs::path(TESSERA_GOLDEN_DIRECTORY) / "small";
    fs::create_directories(directory / "model");
    fs::copy_file(golden / "config.json", directory / "model" / "config.json");
    std::ifstream in(golden / "model.safetensors", std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), {}};
    for (const char* name :
         {"1.mlp.experts.down_proj\"", "1.input_layernorm.weight\"", "1.self_attn.sinks\""}) {
      bytes.at(bytes.find(name)) = '7';  // layer 7
    }
    std::ofstream(directory / "model" / "model.safetensors", std::ios::binary) << bytes;
  }
  world.barrier("model written");
  return directory / "model";
}

checkpoint::KeyOptions permitted(const char* missing) {
  checkpoint::KeyOptions keys;
  keys.allow_missing = {missing};
  keys.allow_unexpected = {"model.layers.7.*"};
  return keys;
}

}  // namespace

TEST_CASE("A missing tensor is refused by name on all ranks, unless the user permits it") {
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world);
  const fs::path path = model_without(world, directory.path());
  std::string text;
  try {
    open_model(world, path, permitted("*.1.self_attn.sinks"));
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::keys);
    text = error.what();
  }
  CHECK_SAME(world, text);
  CHECK(text.find("missing (2)") != std::string::npos);
  CHECK(text.find("model.layers.1.mlp.experts.down_proj") != std::string::npos);
  CHECK(text.find("missing, allowed (1)") != std::string::npos);
  world.barrier("checked");
}

TEST_CASE("Permitted tensors are initialised the same on every grid") {
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world);
  const fs::path path = model_without(world, directory.path());
  std::vector<double> first;
  for (int expert = 1; expert <= world.size(); ++expert) {
    if (world.size() % expert != 0) continue;
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    ModelSource model = open_model(grid.world(), path, permitted("model.layers.1.*"));
    auto store = make_store<float>(grid, model.config);
    load_parameters(grid, model, store);
    save_checkpoint(grid, store, directory / "saved.h5", model.training, model);
    if (world.rank() == 0) {
      const test::ResultFile saved((directory / "saved.h5").string());
      const std::string layer = "parameters/model.layers.1.";
      CHECK(saved.values(layer + "input_layernorm.weight") == std::vector<double>(64, 1.0));
      CHECK(saved.values(layer + "self_attn.sinks") == std::vector<double>(4, 0.0));
      const auto weights = saved.values(layer + "mlp.experts.down_proj");
      double sum = 0.0, squares = 0.0;
      for (const double value : weights) sum += value, squares += value * value;
      const auto n = static_cast<double>(weights.size());
      CHECK(std::abs(sum / n) < 0.001);
      CHECK(std::sqrt(squares / n) == Approx(model.config.initializer_range).epsilon(0.05));
      if (first.empty()) first = weights;
      CHECK(weights == first);
      // What the file has is read as ever.
      CHECK(std::abs(saved.values(layer + "mlp.router.bias")[0]) > 0.0);
    }
    world.barrier("grid done");
  }
}

namespace {

/// The golden model as one whose configuration ties the embeddings; `repeats`: whether the output
/// matrix in the file is that of the embeddings.
fs::path tied_model(const comm::Communicator& world, const fs::path& directory, bool repeats) {
  const fs::path golden = fs::path(TESSERA_GOLDEN_DIRECTORY) / "small", path = directory / "tied";
  if (world.rank() == 0) {
    fs::create_directories(path);
    const auto text = [](const fs::path& file) {
      std::ifstream in(file, std::ios::binary);
      return std::string{std::istreambuf_iterator<char>(in), {}};
    };
    std::string config = text(golden / "config.json"), bytes = text(golden / "model.safetensors");
    const std::string untied = "\"tie_word_embeddings\": false";
    config.replace(config.find(untied), untied.size(), "\"tie_word_embeddings\": true");
    const auto header = checkpoint::read_safetensors_header(golden / "model.safetensors", 0);
    const auto place_of = [&](const std::string& name) {
      return std::find_if(header.tensors.begin(), header.tensors.end(),
                          [&](const auto& tensor) { return tensor.name == name; });
    };
    const auto embedding = place_of("model.embed_tokens.weight"), head = place_of("lm_head.weight");
    if (repeats) {
      const std::int64_t size_bytes = head->end_bytes - head->begin_bytes;
      bytes.replace(header.data_offset_bytes + head->begin_bytes, size_bytes, bytes,
                    header.data_offset_bytes + embedding->begin_bytes, size_bytes);
    }
    std::ofstream(path / "config.json") << config;
    std::ofstream(path / "model.safetensors", std::ios::binary) << bytes;
  }
  world.barrier("model written");
  return path;
}

}  // namespace

TEST_CASE("An output matrix that is not the embeddings it is tied to is refused, not lost") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1});
  const comm::Communicator& world = grid.world();
  const test::TemporaryDirectory directory(world);
  for (const bool repeats : {true, false}) {
    ModelSource model = open_model(world, tied_model(world, directory.path(), repeats), {});
    auto store = make_store<float>(grid, model.config);
    std::string text;
    try {
      load_parameters(grid, model, store);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::keys);
      text = error.what();
    }
    CHECK_SAME(world, text);
    CHECK(text.empty() == repeats);
    if (!repeats) CHECK(text.find("'lm_head.weight' has another content") != std::string::npos);
    world.barrier("loaded");
  }
}

}  // namespace tessera::trainer
