// SPDX-License-Identifier: Apache-2.0
// What a model expects against what a checkpoint has.
#include "tessera/checkpoint/key_report.hpp"

#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "base/log.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Matchers::Contains;

namespace {

/// A checkpoint that has headers alone.
class HeadersOnly : public Source {
 public:
  explicit HeadersOnly(std::vector<TensorInfo> tensors) {
    tensors_ = std::move(tensors);
    path_ = "model-directory";
  }
  Shape stored_shape(const Parameter& parameter) const override {
    return parameter.checkpoint_shape();
  }
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
  // A Source sorts its tensors; here find() must work for layers.1.down alone.
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
