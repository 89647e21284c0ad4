// SPDX-License-Identifier: Apache-2.0
// What a model expects against what a checkpoint has.
#include "tessera/checkpoint/key_report.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "base/log.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;

namespace {

/// A checkpoint that has headers alone.
class HeadersOnly : public Source {
 public:
  explicit HeadersOnly(std::vector<TensorInfo> tensors) {
    tensors_ = std::move(tensors);
    std::sort(tensors_.begin(), tensors_.end(),
              [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
    path_ = "model-directory";
  }
  std::vector<StoredPart> parts(const Parameter& parameter) const override {
    return parameter.stored_parts();
  }
  bool has(const Parameter&) const override { return true; }
  Origin origin(const Parameter&) const override { return {}; }
  std::int64_t stored_bytes(const Parameter&) const override { return 0; }
  const char* kind() const override { return "test checkpoint"; }
  LoadReport load(const comm::ProcessGrid&, std::span<const Parameter>, std::span<const Slice>,
                  std::span<float>, const LoadOptions&) override {
    return {};
  }
};

const std::vector<Parameter> parameters = {
    {.name = "norm", .shape = {4}},
    {.name = "layers.0.down", .shape = {8, 4, 5}, .is_expert = true, .transposed = true},
    {.name = "layers.1.down", .shape = {8, 4, 5}, .is_expert = true, .transposed = true}};

TensorInfo tensor(const std::string& name, Dtype dtype, Shape shape) {
  return {name, dtype, std::move(shape), "model.safetensors"};
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("a checkpoint with the expected tensors is in order, whatever their float type") {
  const HeadersOnly source({tensor("layers.0.down", Dtype::bf16, {8, 5, 4}),
                            tensor("layers.1.down", Dtype::f16, {8, 5, 4}),
                            tensor("norm", Dtype::f32, {4})});
  CHECK(compare_keys(source, parameters, {}).ok());
  CHECK_NOTHROW(require_keys(source, parameters, {}));
}

TEST_CASE("missing, unexpected and misshapen tensors are listed in order of name") {
  const HeadersOnly source({tensor("extra.b", Dtype::f32, {1}), tensor("extra.a", Dtype::f32, {1}),
                            tensor("layers.1.down", Dtype::bf16, {8, 4, 5})});
  const KeyReport report = compare_keys(source, parameters, {});
  CHECK_FALSE(report.ok());
  CHECK(report.missing == Names{"layers.0.down", "norm"});
  CHECK(report.unexpected == Names{"extra.a", "extra.b"});
  CHECK(report.mismatched ==
        Names{"layers.1.down: checkpoint has bf16 [8, 4, 5], the model needs [8, 5, 4]"});
  CHECK_THAT(report.describe(), Contains("missing (2):\n  layers.0.down\n  norm\n") &&
                                    Contains("unexpected (2)") && Contains("mismatched (1)"));
}

TEST_CASE("a tensor of whole numbers is no weight") {
  const HeadersOnly source({tensor("norm", Dtype::i64, {4})});
  const KeyReport report = compare_keys(source, std::span(parameters).first(1), {});
  REQUIRE(report.mismatched.size() == 1);
  CHECK_THAT(report.mismatched[0], Contains("norm: checkpoint has i64 [4]"));
}

TEST_CASE("what the family ignores and what is tied are lists of their own") {
  const HeadersOnly source({tensor("layers.2.down", Dtype::f8_e4m3, {1}),
                            tensor("lm_head", Dtype::bf16, {4}), tensor("norm", Dtype::f32, {4}),
                            tensor("rotary.inv_freq", Dtype::f32, {2})});
  KeyOptions options;
  options.ignored = {"layers.2.*", "*inv_freq"};
  options.tied = {"lm_head"};
  options.allow_unexpected = {"*"};
  const KeyReport report = compare_keys(source, std::span(parameters).first(1), options);
  CHECK(report.ok());
  CHECK(report.num_fitting == 1);
  CHECK(report.ignored == Names{"layers.2.down", "rotary.inv_freq"});
  CHECK(report.tied == Names{"lm_head"});
  CHECK(report.allowed_unexpected.empty());
  CHECK(report.describe() ==
        "as expected (1)\n"
        "ignored, never read (2):\n  layers.2.down\n  rotary.inv_freq\n"
        "tied to another tensor (1):\n  lm_head\n");
}

TEST_CASE("each stored part of a parameter is expected by its own name, and is named once") {
  const std::vector<Parameter> fused = {
      {.name = "gate_up",
       .shape = {2, 6, 4},
       .is_expert = true,
       .stored = {{"0.w1", {3, 4}, 0, 12, 0},
                  {"0.w3", {3, 4}, 12, 12, 0},
                  {"1.w1", {3, 4}, 24, 12, 0},
                  {"1.w3", {3, 4}, 36, 12, 0}}},
      {.name = "q", .shape = {2, 4}, .stored = {{"qkv", {3, 4}, 0, 8, 0}}},
      {.name = "k", .shape = {1, 4}, .stored = {{"qkv", {3, 4}, 0, 4, 8}}}};
  const HeadersOnly source({tensor("0.w1", Dtype::bf16, {3, 4}), tensor("0.w3", Dtype::f32, {3, 5}),
                            tensor("1.w3", Dtype::f16, {3, 4}),
                            tensor("gate_up", Dtype::f32, {2, 6, 4})});
  const KeyReport report = compare_keys(source, fused, {});
  CHECK(report.num_fitting == 2);
  CHECK(report.missing == Names{"1.w1", "qkv"});
  CHECK(report.unexpected == Names{"gate_up"});
  CHECK(report.mismatched == Names{"0.w3: checkpoint has f32 [3, 5], the model needs [3, 4]"});
}

TEST_CASE("MXFP4 weights are expected as blocks and scales, in either spelling") {
  Parameter down = {.name = "down", .shape = {2, 5, 64}, .is_expert = true, .transposed = true};
  down.may_be_mxfp4 = true;
  const TensorInfo blocks = tensor("down_blocks", Dtype::u8, {2, 5, 2, 16});
  const TensorInfo scales = tensor("down_scales", Dtype::u8, {2, 5, 2});
  const TensorInfo plain = tensor("down", Dtype::bf16, {2, 64, 5});
  const auto report = [&](std::vector<TensorInfo> tensors) {
    return compare_keys(HeadersOnly(std::move(tensors)), std::span(&down, 1), {});
  };
  const auto mismatches = [&](std::vector<TensorInfo> tensors) {
    const KeyReport found = report(std::move(tensors));
    CHECK(found.missing.empty());
    CHECK(found.unexpected.empty());
    return found.mismatched;
  };
  CHECK(report({plain}).ok());
  CHECK(report({blocks, scales}).ok());
  CHECK(report({tensor("down.blocks", Dtype::u8, {2, 5, 2, 16}),
                tensor("down.scales", Dtype::u8, {2, 5, 2})})
            .ok());
  CHECK(report({}).missing == Names{"down"});
  CHECK(mismatches({blocks}) ==
        Names{"down_scales: missing though down_blocks is there (MXFP4 weights need both)"});
  CHECK(mismatches({scales}) ==
        Names{"down_blocks: missing though down_scales is there (MXFP4 weights need both)"});
  CHECK(mismatches({plain, blocks, scales}) ==
        Names{"down: ambiguous, the checkpoint has down_blocks too (which of the two is the weight "
              "is unknown)"});
  CHECK(mismatches({tensor("down_blocks", Dtype::u8, {2, 2, 5, 16}), scales}) ==
        Names{"down_blocks: checkpoint has u8 [2, 2, 5, 16], the model needs u8 [2, 5, 2, 16]"});
  CHECK(mismatches({blocks, tensor("down_scales", Dtype::bf16, {2, 5, 2})}) ==
        Names{"down_scales: checkpoint has bf16 [2, 5, 2], the model needs u8 [2, 5, 2]"});
  down.shape = {2, 5, 63};
  CHECK(
      mismatches({blocks, scales}) ==
      Names{"down_blocks: MXFP4 has blocks of 32 along the input, but the model needs [2, 63, 5]"});
  down.may_be_mxfp4 = false;
  CHECK(report({blocks, scales}).unexpected == Names{"down_blocks", "down_scales"});
}

TEST_CASE("FP8 weights are expected with the factors of their blocks") {
  const Parameter weight = {.name = "w", .shape = {130, 256}};
  const TensorInfo fp8 = tensor("w", Dtype::f8_e4m3, {130, 256});
  const auto mismatches = [&](std::vector<TensorInfo> tensors) {
    return compare_keys(HeadersOnly(std::move(tensors)), std::span(&weight, 1), {}).mismatched;
  };
  CHECK(mismatches({fp8, tensor("w_scale_inv", Dtype::f32, {2, 2})}).empty());
  CHECK(mismatches({fp8, tensor("w_scale_inv", Dtype::bf16, {2, 2})}).empty());
  CHECK(mismatches({fp8}) == Names{"w_scale_inv: missing though w is there (FP8 weights mean "
                                   "nothing without their scales)"});
  CHECK(mismatches({fp8, tensor("w_scale_inv", Dtype::f32, {130, 2})}) ==
        Names{"w_scale_inv: checkpoint has f32 [130, 2], the model needs [2, 2]"});
  CHECK(mismatches({fp8, tensor("w_scale_inv", Dtype::f64, {2, 2})}) ==
        Names{"w_scale_inv: checkpoint has f64 [2, 2], the model needs f32, bf16 or f16 [2, 2]"});
  CHECK(mismatches({tensor("w", Dtype::f8_e4m3, {256, 130})}) ==
        Names{"w: checkpoint has f8_e4m3 [256, 130], the model needs [130, 256]"});
  const Parameter vector = {.name = "w", .shape = {256}};
  CHECK(compare_keys(HeadersOnly({tensor("w", Dtype::f8_e4m3, {256})}), std::span(&vector, 1), {})
            .mismatched == Names{"w: checkpoint has f8_e4m3 [256], the model needs f32, bf16, f16 "
                                 "or f64 [256]"});
  // Factors of a weight that is plain are of no use.
  const KeyReport plain = compare_keys(HeadersOnly({tensor("w", Dtype::bf16, {130, 256}),
                                                    tensor("w_scale_inv", Dtype::f32, {2, 2})}),
                                       std::span(&weight, 1), {});
  CHECK(plain.unexpected == Names{"w_scale_inv"});
}

TEST_CASE("a parameter may be missing as a whole only") {
  const Parameter fused = {.name = "gate_up",
                           .shape = {6, 4},
                           .stored = {{"w1", {3, 4}, 0, 12, 0}, {"w3", {3, 4}, 12, 12, 0}}};
  const auto report = [&](std::vector<TensorInfo> tensors, const std::string& allowed) {
    KeyOptions options;
    options.allow_missing = {allowed};
    return compare_keys(HeadersOnly(std::move(tensors)), std::span(&fused, 1), options);
  };
  const TensorInfo w1 = tensor("w1", Dtype::bf16, {3, 4});
  CHECK(report({}, "gate_up").allowed_missing == Names{"w1", "w3"});
  CHECK(report({}, "w*=zeros").allowed_missing == Names{"w1", "w3"});
  CHECK(report({}, "w1").missing == Names{"w1", "w3"});
  for (const char* allowed : {"gate_up", "w*", "*"})
    CHECK(report({w1}, allowed).mismatched ==
          Names{"w3: missing though other parts of gate_up are there (it can be initialised only "
                "as a whole)"});
  CHECK(report({w1}, "w3").missing == Names{"w3"});
}

TEST_CASE("an entry says how a missing parameter is initialised") {
  const Parameter& norm = parameters[0];
  const std::vector<StoredPart> parts = norm.stored_parts();
  const auto how = [&](std::vector<std::string> entries) {
    return initialisation_of(entries, norm, parts);
  };
  CHECK(how({}) == Initialisation::as_model);
  CHECK(how({"norm"}) == Initialisation::as_model);
  CHECK(how({"other=zeros", "n*=ones", "norm=zeros"}) == Initialisation::ones);
  CHECK(how({"norm=normal"}) == Initialisation::normal);
  CHECK_THROWS_WITH(how({"norm=uniform"}),
                    Contains("'norm=uniform': 'uniform' is no way to initialise"));
  KeyOptions options;
  options.allow_missing = {"absent="};
  CHECK_THROWS_AS(compare_keys(HeadersOnly({}), {}, options), Error);
}

TEST_CASE("names are allowed to be missing or unexpected by patterns") {
  const HeadersOnly source(
      {tensor("layers.1.extra.scale", Dtype::u8, {1}), tensor("norm", Dtype::f32, {4})});
  KeyOptions options;
  options.allow_missing = {"layers.*.down"};
  options.allow_unexpected = {"*extra*scale"};
  const KeyReport report = compare_keys(source, parameters, options);
  CHECK(report.ok());
  CHECK(report.allowed_missing == Names{"layers.0.down", "layers.1.down"});
  CHECK(report.allowed_unexpected == Names{"layers.1.extra.scale"});
}

TEST_CASE("a pattern without a star is a whole name and a star matches any text") {
  const HeadersOnly source({tensor("a.bias", Dtype::f32, {1}), tensor("a.bias.b", Dtype::f32, {1}),
                            tensor("abab", Dtype::f32, {1}), tensor("c", Dtype::f32, {1})});
  const auto allowed = [&](const std::string& pattern) {
    KeyOptions options;
    options.allow_unexpected = {pattern};
    return compare_keys(source, {}, options).allowed_unexpected;
  };
  CHECK(allowed("a.bias") == Names{"a.bias"});
  CHECK(allowed("a.bias*") == Names{"a.bias", "a.bias.b"});
  CHECK(allowed("*ab") == Names{"abab"});
  CHECK(allowed("a*b") == Names{"a.bias.b", "abab"});
  CHECK(allowed("**") == Names{"a.bias", "a.bias.b", "abab", "c"});
  CHECK(allowed("").empty());
  CHECK(allowed("a").empty());
}

TEST_CASE("keys that do not fit are one error with the whole report") {
  const HeadersOnly source({tensor("norm", Dtype::f32, {5})});
  try {
    require_keys(source, parameters, {});
    FAIL("accepted");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::keys);
    CHECK_THAT(error.what(), Contains("test checkpoint model-directory") &&
                                 Contains("layers.1.down") &&
                                 Contains("norm: checkpoint has f32 [5], the model needs [4]"));
  }
}

TEST_CASE("what was allowed is a warning with the names") {
  std::string warning;
  set_log_sink([&](LogLevel level, const std::string& text) {
    if (level == LogLevel::warning) warning += text;
  });
  KeyOptions options;
  options.allow_missing = {"*"};
  require_keys(HeadersOnly({}), parameters, options);
  set_log_sink({});
  CHECK_THAT(warning, Contains("layers.0.down"));
}

TEST_CASE("long lists are cut with their count") {
  std::vector<Parameter> many;
  for (int k = 0; k < 50; ++k) many.push_back({.name = fmt::format("p{:02}", k), .shape = {1}});
  const std::string text = compare_keys(HeadersOnly({}), many, {}).describe();
  CHECK_THAT(text, Contains("missing (50)") && Contains("p19") && Contains("and 30 more") &&
                       !Contains("p20"));
}
