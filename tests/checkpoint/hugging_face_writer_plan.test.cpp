// SPDX-License-Identifier: Apache-2.0
// What an export would write, from the parameters alone.
#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "tessera/checkpoint/export_plan.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;

namespace {

/// Names of the tensors of each file, in the order of the plan.
std::vector<std::string> members(const ExportPlan& plan) {
  std::vector<std::string> files(plan.files.size());
  for (const ExportTensor& tensor : plan.tensors) files[tensor.file] += tensor.name;
  return files;
}

std::vector<Parameter> of_sizes(const std::vector<std::int64_t>& halves) {
  std::vector<Parameter> parameters;
  for (const std::int64_t size : halves)
    parameters.push_back({.name = std::string(1, char('a' + parameters.size())), .shape = {size}});
  return parameters;
}

const Parameter fp4{.name = "fp4",
                    .shape = {2, 6, 64},
                    .is_expert = true,
                    .transposed = true,
                    .may_be_mxfp4 = true};

}  // namespace

TEST_CASE("tensors are dealt to files in order, as transformers deals them") {
  // The example of huggingface_hub's split_state_dict_into_shards_factory, in bytes of bf16.
  const ExportOptions ten{.max_shard_bytes = 20};
  CHECK(members(plan_export(of_sizes({6, 6, 2, 6, 2, 2}), {}, ten)) ==
        std::vector<std::string>{"a", "bc", "def"});
  // One above the limit gets a file of its own, which the current one does not wait for.
  CHECK(members(plan_export(of_sizes({4, 11, 4}), {}, ten)) == std::vector<std::string>{"b", "ac"});
  const ExportPlan single = plan_export(of_sizes({5, 5}), {}, ten);
  CHECK(single.files.at(0).name == "model.safetensors");
  CHECK(single.index_json() == "");
}

TEST_CASE("the index names each tensor's file and the sums") {
  std::vector<Parameter> parameters = of_sizes({5, 6});
  parameters[1].trainable = false;
  const ExportPlan plan = plan_export(parameters, {{"b", {{Dtype::f32}}}}, {.max_shard_bytes = 24});
  CHECK(plan.index_json() == R"({
  "metadata": {
    "total_parameters": 5,
    "total_size": 34
  },
  "weight_map": {
    "a": "model-00001-of-00002.safetensors",
    "b": "model-00002-of-00002.safetensors"
  }
}
)");
}

TEST_CASE("wide elements come first in a file, so that each is aligned") {
  const ExportPlan plan =
      plan_export(of_sizes({3, 5, 1}), {{"b", {{Dtype::f32}}}, {"c", {{Dtype::f64}}}}, {});
  const auto offset = [&](std::size_t k) {
    return plan.tensors[k].offset_bytes - plan.tensors[2].offset_bytes;
  };
  CHECK(plan.tensors[2].offset_bytes % 8 == 0);
  CHECK(offset(1) == 8);
  CHECK(offset(0) == 28);
  CHECK(plan.files[0].bytes == plan.tensors[0].offset_bytes + 6);
}

TEST_CASE("experts become MXFP4 where they came so or it is asked for") {
  const auto names = [](const Origins& origins, ExpertFormat format) {
    std::string text;
    for (const ExportTensor& tensor : plan_export({&fp4, 1}, origins, {.experts = format}).tensors)
      text +=
          fmt::format("{} {} {};", tensor.name, to_string(tensor.dtype), to_string(tensor.shape));
    CHECK(exports_mxfp4({&fp4, 1}, origins, {.experts = format}) ==
          (text.find("_blocks") != text.npos));
    return text;
  };
  const Origins came_so = {{"fp4", {{Dtype::bf16}, true}}}, in_f32 = {{"fp4", {{Dtype::f32}}}};
  const std::string blocks = "fp4_blocks u8 [2, 6, 2, 16];fp4_scales u8 [2, 6, 2];";
  const std::string plain = "fp4 bf16 [2, 64, 6];";
  CHECK(names(came_so, ExpertFormat::as_imported) == blocks);
  CHECK(names(came_so, ExpertFormat::mxfp4) == blocks);
  CHECK(names(came_so, ExpertFormat::bf16) == plain);
  CHECK(names(in_f32, ExpertFormat::as_imported) == "fp4 f32 [2, 64, 6];");
  CHECK(names(in_f32, ExpertFormat::mxfp4) == blocks);
  CHECK(names(in_f32, ExpertFormat::bf16) == plain);
  CHECK(names({}, ExpertFormat::as_imported) == plain);
}

TEST_CASE("MXFP4 is refused by name where a model has none") {
  const ExportOptions mxfp4{.experts = ExpertFormat::mxfp4};
  Parameter odd = fp4;
  odd.shape = {2, 6, 48};
  CHECK_THROWS_WITH(plan_export({&odd, 1}, {}, mxfp4),
                    Contains("'fp4' [2, 48, 6]") && Contains("multiple of 32"));
  Parameter other = fp4;
  other.may_be_mxfp4 = false;
  CHECK_THROWS_WITH(plan_export({&other, 1}, {}, mxfp4), Contains("'fp4' has no MXFP4 form"));
  CHECK_THROWS_WITH(plan_export(of_sizes({3}), {}, mxfp4), Contains("has no experts"));
}
