// SPDX-License-Identifier: Apache-2.0
// The proof after a load: whatever happens to an expert between the file and its shard is found,
// and named alike on all ranks.
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <functional>
#include <tessera/trainer/model_state.hpp>

#include "base/error.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;

using Damage = std::function<void(std::span<const Slice>, std::span<float>)>;

/// A source whose values are damaged as soon as they are in the shard.
class DamagedSource : public checkpoint::Source {
 public:
  DamagedSource(std::unique_ptr<checkpoint::Source> source, Damage damage)
      : source_(std::move(source)), damage_(std::move(damage)) {
    path_ = source_->path();
    config_json_ = source_->config_json();
    tensors_ = source_->tensors();
  }
  std::vector<StoredPart> parts(const Parameter& p) const override { return source_->parts(p); }
  bool has(const Parameter& p) const override { return source_->has(p); }
  checkpoint::Origin origin(const Parameter& p) const override { return source_->origin(p); }
  std::int64_t stored_bytes(const Parameter& p) const override { return source_->stored_bytes(p); }
  const checkpoint::TensorFingerprint* stated_fingerprint(const Parameter& p) const override {
    return source_->stated_fingerprint(p);
  }
  const char* kind() const override { return source_->kind(); }
  checkpoint::LoadReport load(const comm::ProcessGrid& grid, std::span<const Parameter> parameters,
                              std::span<const Slice> slices, std::span<float> shard,
                              const checkpoint::LoadOptions& options) override {
    const auto report = source_->load(grid, parameters, slices, shard, options);
    damage_(slices, shard);
    return report;
  }

 private:
  std::unique_ptr<checkpoint::Source> source_;
  Damage damage_;
};

constexpr const char* tensor = "model.layers.1.mlp.experts.down_proj";

/// The shard's part of the tensor, empty where the rank owns none of it.
std::span<float> values_of(std::span<const Slice> slices, std::span<float> shard) {
  for (const Slice& slice : slices) {
    if (slice.parameter->name != tensor) continue;
    return shard.subspan(static_cast<std::size_t>(slice.shard_offset),
                         static_cast<std::size_t>(slice.size()));
  }
  return {};
}

/// Loads a golden model, or that of an absolute path, with this damage; the message, empty if
/// nothing was found.
std::string load_damaged(const comm::ProcessGrid& grid, const Damage& damage,
                         Verify verify = Verify::yes, const fs::path& path = "small") {
  ModelSource model = open_model(grid.world(), fs::path(TESSERA_GOLDEN_DIRECTORY) / path, {});
  model.source = std::make_unique<DamagedSource>(std::move(model.source), damage);
  auto store = make_store<float>(grid, model.config);
  try {
    load_parameters(grid, model, store, {}, verify);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("An undamaged load is proved on every grid") {
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  for (int expert = 1; expert <= world.size(); ++expert) {
    if (world.size() % expert != 0) continue;
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    CHECK(load_damaged(grid, [](auto, auto) {}).empty());
  }
}

TEST_CASE("Exchanged, doubled, zeroed and flipped experts are found and named on all ranks") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {2});  // four experts, two a rank
  const comm::Communicator& world = grid.world();
  const auto check = [&](const char* what, const char* expert, const Damage& damage) {
    INFO(what);
    const std::string text = load_damaged(grid, damage);
    CHECK_SAME(world, text);
    CHECK(text.find(fmt::format("'{}', expert {}", tensor, expert)) != std::string::npos);
    CHECK(load_damaged(grid, damage, Verify::no).empty());
  };
  const bool has_first = grid.expert().rank() == 0;
  check("two experts of one rank exchanged", "2", [&](auto slices, auto shard) {
    const std::span<float> values = values_of(slices, shard);
    if (has_first || grid.replica().size() > 1) {
      // Halves of two experts each: with more replicas a rank holds parts of one alone.
      if (!has_first && !values.empty()) std::swap(values.front(), values.back());
      return;
    }
    std::swap_ranges(values.begin(), values.begin() + std::ssize(values) / 2,
                     values.begin() + std::ssize(values) / 2);
  });
  check("an expert zeroed", "0", [&](auto slices, auto shard) {
    const std::span<float> values = values_of(slices, shard);
    if (has_first) std::fill(values.begin(), values.end(), 0.0f);
  });
  check("one bit flipped on one rank", "3", [&](auto slices, auto shard) {
    const std::span<float> values = values_of(slices, shard);
    if (world.rank() != world.size() - 1 || values.empty()) return;
    std::uint32_t bits;
    std::memcpy(&bits, &values.back(), sizeof bits);
    bits ^= 1u << 17;
    std::memcpy(&values.back(), &bits, sizeof bits);
  });
  check("the first rank's experts on both", "2", [&](auto slices, auto shard) {
    const std::span<float> values = values_of(slices, shard);
    std::vector<float> mine(values.begin(), values.end()), first = mine;
    grid.expert().broadcast("experts of the first rank", std::span(first), 0);
    std::copy(first.begin(), first.end(), values.begin());
  });
}

TEST_CASE("What happens to a shard while later units are loaded is found, from whatever file") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const fs::path golden = fs::path(TESSERA_GOLDEN_DIRECTORY) / "small";
  {
    ModelSource model = open_model(grid.world(), golden, {});
    auto store = make_store<float>(grid, model.config);
    load_parameters(grid, model, store);
    save_checkpoint(grid, store, directory / "small.h5", {}, model);
  }
  for (const fs::path& path : {golden, directory / "small.h5"}) {
    INFO(path);
    std::span<float> earlier;
    // The first value of the tensor, overwritten when the unit after its own has been loaded.
    const auto damage = [&](std::span<const Slice> slices, std::span<float> shard) {
      if (!earlier.empty()) earlier.front() = 0.1234f;
      const bool owns_first = std::ranges::any_of(slices, [](const Slice& slice) {
        return slice.parameter->name == tensor && slice.begin == 0;
      });
      earlier = owns_first ? values_of(slices, shard) : std::span<float>();
    };
    const std::string text = load_damaged(grid, damage, Verify::yes, path);
    CHECK_SAME(grid.world(), text);
    CHECK(text.find(fmt::format("'{}', expert 0", tensor)) != std::string::npos);
    CHECK(load_damaged(grid, damage, Verify::no, path).empty());
  }
}

TEST_CASE("Damage is found under whatever names the checkpoint has its tensors") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1});
  for (const char* golden : {"original", "mxfp4", "mixtral", "deepseek_v3_fp8"}) {
    INFO(golden);
    CHECK(load_damaged(
              grid, [](auto, auto) {}, Verify::yes, golden)
              .empty());
    const Damage damage = [](auto slices, auto shard) {
      const std::span<float> values = values_of(slices, shard);
      if (!values.empty()) values.front() += 1.0f;
    };
    const std::string text = load_damaged(grid, damage, Verify::yes, golden);
    CHECK_SAME(grid.world(), text);
    CHECK(text.find(tensor) != std::string::npos);
  }
}

}  // namespace tessera::trainer
