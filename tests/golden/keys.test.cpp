// SPDX-License-Identifier: Apache-2.0
// In every family a tensor that was deleted, added or given another shape is reported by exactly
// its name, on every rank.
#include <algorithm>
#include <catch2/catch.hpp>
#include <tessera/trainer/model_state.hpp>

#include "base/error.hpp"
#include "safetensors_copy.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;

const fs::path golden_directory = TESSERA_GOLDEN_DIRECTORY;

/// A copy of a golden checkpoint that rank 0 alters again and again.
class AlteredModel {
 public:
  AlteredModel(const comm::Communicator& world, const fs::path& original, const fs::path& directory)
      : world_(world), copy_(original), directory_(directory / original.filename()) {
    if (world.rank() == 0) {
      fs::create_directories(directory_);
      fs::copy_file(original / "config.json", directory_ / "config.json");
    }
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& tensor : copy_.tensors) names.push_back(tensor.first);
    return names;
  }
  /// What all ranks report of the altered copy. collective.
  template <class Alter>
  checkpoint::KeyReport report(const Alter& alter) const {
    if (world_.rank() == 0) {
      SafetensorsCopy altered = copy_;
      alter(altered.tensors);
      altered.write(directory_ / "model.safetensors");
    }
    world_.barrier("altered");
    const trainer::ModelSource model = trainer::describe_model(world_, directory_, {});
    const checkpoint::KeyReport report =
        compare_keys(*model.source, all_parameters(model.units), model.keys);
    const std::string text = refusal();
    CHECK_SAME(world_, text);
    CHECK_SAME(world_, report.describe());
    CHECK(text.empty() == report.ok());
    if (!report.ok()) CHECK(text.find(report.describe()) != std::string::npos);
    return report;
  }

 private:
  /// Text of the error with which the altered model is refused; empty if it is not.
  std::string refusal() const {
    try {
      trainer::open_model(world_, directory_, {});
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::keys);
      return error.what();
    }
    return "";
  }

  const comm::Communicator& world_;
  SafetensorsCopy copy_;
  fs::path directory_;
};

bool begins_with(const std::string& text, const std::string& name) {
  return text.compare(0, name.size(), name) == 0 &&
         (text.size() == name.size() || text[name.size()] == ':');
}

/// Every list together has one entry, which begins with the name.
void check_only(const checkpoint::KeyReport& report, const std::string& name) {
  std::vector<std::string> all = report.missing;
  all.insert(all.end(), report.unexpected.begin(), report.unexpected.end());
  all.insert(all.end(), report.mismatched.begin(), report.mismatched.end());
  INFO(report.describe());
  CHECK(all.size() == 1);
  CHECK(std::any_of(all.begin(), all.end(),
                    [&](const std::string& entry) { return begins_with(entry, name); }));
}

/// [2, 3] becomes [3, 2], [2, 2] becomes [4], [5] becomes [1, 5]: as many bytes.
std::vector<std::int64_t> another_shape(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> other(shape.rbegin(), shape.rend());
  if (shape.size() == 1) return {1, shape[0]};
  return other == shape ? std::vector<std::int64_t>{num_elements(shape)} : other;
}

}  // namespace

TEST_CASE("A deleted, an added and a misshapen tensor of any family are named on every rank") {
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const TemporaryDirectory directory(world);
  for (const char* name : {"plain", "mxfp4", "original", "mixtral", "mixtral_4", "qwen3_moe",
                           "qwen3_moe_4", "olmoe", "olmoe_4", "deepseek_v3", "deepseek_v3_4",
                           "deepseek_v3_fp8", "llama", "llama_4", "qwen3", "qwen3_4"}) {
    INFO(name);
    const AlteredModel model(world, golden_directory / name, directory.path());
    const checkpoint::KeyReport whole = model.report([](auto&) {});
    CHECK(whole.ok());
    const std::string surplus = "model.layers.0.self_attn.surplus.weight";
    const auto add = [&](auto& tensors) { tensors[surplus] = {"F32", {1}, "\1\2\3\4"}; };
    const checkpoint::KeyReport added = model.report(add);
    check_only(added, surplus);
    CHECK(added.unexpected == std::vector<std::string>{surplus});

    const std::vector<std::string> names = model.names();
    const std::size_t stride = std::max<std::size_t>(1, names.size() / 16);
    for (std::size_t i = 0; i < names.size(); i += stride) {
      INFO(names[i]);
      if (std::count(whole.ignored.begin(), whole.ignored.end(), names[i]) > 0) continue;
      check_only(model.report([&](auto& tensors) { tensors.erase(names[i]); }), names[i]);
      check_only(model.report([&](auto& tensors) {
        tensors[names[i]].shape = another_shape(tensors[names[i]].shape);
      }),
                 names[i]);
    }
  }
}

}  // namespace tessera::test
