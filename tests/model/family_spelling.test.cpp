// SPDX-License-Identifier: Apache-2.0
// config.json as it is exported, and the original spelling of gpt-oss.
#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "family_released.hpp"
#include "tessera/model/config.hpp"

using Catch::Contains;
using nlohmann::json;
using nlohmann::ordered_json;
using namespace tessera::model;
using namespace tessera::test;

namespace {

constexpr const char* gpt_oss = "{\"vocab_size\":   9, \"model_type\": \"gpt_oss\"}";

std::string refusal(json config) {
  try {
    parse_config(config.dump(), "config.json");
  } catch (const tessera::Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a configuration that need not change is exported byte for byte") {
  CHECK(hugging_face_config(gpt_oss, false) == gpt_oss);
  const std::string mixtral = mixtral_8x7b().dump(3);
  CHECK(hugging_face_config(mixtral, false) == mixtral);
  const std::string packed = hugging_face_config(gpt_oss, true);
  CHECK(hugging_face_config(packed, true) == packed);
}

TEST_CASE("the quantization is added, kept and removed as the exported experts ask") {
  const std::string packed = hugging_face_config(gpt_oss, true);
  const auto config = ordered_json::parse(packed);
  CHECK(config.begin().key() == "vocab_size");
  CHECK(config["quantization_config"]["quant_method"] == "mxfp4");
  CHECK(config["quantization_config"]["modules_to_not_convert"][1] == "model.layers.*.mlp.router");
  CHECK(parse_config(packed, "config.json").family == "gpt_oss");
  CHECK(json::parse(hugging_face_config(packed, false)) == json::parse(gpt_oss));
  const auto deepseek = json::parse(hugging_face_config(deepseek_v3().dump(), false));
  CHECK_FALSE(deepseek.contains("quantization_config"));
  CHECK(deepseek["scoring_func"] == "sigmoid");
  CHECK_THROWS_WITH(hugging_face_config(deepseek_v3().dump(), true),
                    Contains("deepseek_v3 cannot be written as MXFP4"));
}

TEST_CASE("the original gpt-oss configuration is read and exported in transformers' spelling") {
  const std::string original = original_gpt_oss_20b().dump();
  const ModelConfig config = parse_config(original, "config.json");
  CHECK(config.family == "gpt_oss");
  CHECK(config.num_experts == 32);
  CHECK(config.router.options.top_k == 4);
  CHECK(config.max_position == 131072);
  CHECK(config.rope.variant == RopeVariant::yarn);
  CHECK(config.rope.theta == 150000.0);
  CHECK(config.rope.factor == 32.0);
  CHECK(config.rope.beta_fast == 32.0);
  CHECK(config.rope.beta_slow == 1.0);
  CHECK(config.rope.original_max_position == 4096);
  CHECK_FALSE(config.rope.truncate);
  CHECK(config.layer_window[0] == 128);
  const std::string text = hugging_face_config(original, false);
  const auto exported = json::parse(text);
  CHECK(exported["architectures"][0] == "GptOssForCausalLM");
  CHECK(exported["num_local_experts"] == 32);
  CHECK_FALSE(exported.contains("rope_ntk_beta"));
  CHECK(hugging_face_config(text, false) == text);
  CHECK(num_parameters(parse_config(text, "config.json")) == num_parameters(config));
}

TEST_CASE("what the original configuration cannot have is refused by name") {
  json config = original_gpt_oss_20b();
  config["num_local_experts"] = 32;
  CHECK_THAT(refusal(config), Contains("num_local_experts"));
  config = original_gpt_oss_20b();
  config["unknown_key"] = 1;
  CHECK_THAT(refusal(config), Contains("unknown_key"));
  config = original_gpt_oss_20b();
  config["rope_scaling_factor"] = 0.5;
  CHECK_THAT(refusal(config), Contains("rope_scaling_factor is 0.5"));
  config["rope_scaling_factor"] = "x";
  CHECK_THAT(refusal(config), Contains("rope_scaling_factor"));
  config = original_gpt_oss_20b();
  config["experts_per_token"] = 33;
  CHECK_THAT(refusal(config), Contains("num_experts_per_tok"));
}
