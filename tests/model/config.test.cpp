// SPDX-License-Identifier: Apache-2.0
// config.json: the released files, both spellings, defaults, and every refusal by name.
#include "tessera/model/config.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

using nlohmann::json;
using tessera::model::ModelConfig;
using tessera::model::parse_config;
using tessera::model::RopeVariant;

namespace {

json yarn() {
  return {{"rope_type", "yarn"}, {"factor", 32.0},    {"beta_fast", 32.0},
          {"beta_slow", 1.0},    {"truncate", false}, {"original_max_position_embeddings", 4096}};
}

/// gpt-oss-20b as released (transformers 4).
json released() {
  json config = json::parse(R"({"architectures": ["GptOssForCausalLM"], "attention_bias": true,
    "attention_dropout": 0.0, "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64,
    "hidden_act": "silu", "hidden_size": 2880, "initial_context_length": 4096,
    "initializer_range": 0.02, "intermediate_size": 2880, "max_position_embeddings": 131072,
    "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4,
    "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
    "output_router_logits": false, "pad_token_id": 199999, "rms_norm_eps": 1e-05,
    "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.55.0",
    "use_cache": true, "vocab_size": 201088})");
  config["rope_scaling"] = yarn();
  config["quantization_config"] = {
      {"quant_method", "mxfp4"},
      {"modules_to_not_convert",
       {"model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"}}};
  return config;
}

/// The same as transformers 5 writes it.
json rewritten() {
  json config = released();
  config["rope_parameters"] = yarn();
  config["rope_parameters"]["rope_theta"] = 150000.0;
  config["dtype"] = "bfloat16";
  config["swiglu_alpha"] = 1.702;
  config.erase("rope_scaling");
  config.erase("rope_theta");
  config.erase("torch_dtype");
  return config;
}

ModelConfig parse(const json& config) { return parse_config(config.dump(), "config.json"); }

ModelConfig parse_with(const char* key, const json& value) {
  json config = released();
  config[key] = value;
  return parse(config);
}

/// The message parse_config refuses `text` with; empty when it is accepted.
std::string refusal_of_text(const std::string& text) {
  try {
    parse_config(text, "config.json");
  } catch (const tessera::Error& error) {
    CHECK(error.kind() == tessera::ErrorKind::config);
    return error.what();
  }
  return "";
}

std::string refusal(const char* key, const json& value) {
  json config = released();
  config[key] = value;
  return refusal_of_text(config.dump());
}

/// Refuses yarn() with one key changed.
std::string rope_refusal(const char* key, const json& value) {
  json scaling = yarn();
  scaling[key] = value;
  return refusal("rope_scaling", scaling);
}

void check_equal(const ModelConfig& a, const ModelConfig& b) {
  CHECK(a.hidden_size == b.hidden_size);
  CHECK(a.num_experts == b.num_experts);
  CHECK(a.layer_window == b.layer_window);
  CHECK(a.rope.variant == b.rope.variant);
  CHECK(a.rope.theta == b.rope.theta);
  CHECK(a.rope.factor == b.rope.factor);
  CHECK(a.rope.beta_fast == b.rope.beta_fast);
  CHECK(a.rope.beta_slow == b.rope.beta_slow);
  CHECK(a.rope.original_max_position == b.rope.original_max_position);
  CHECK(a.rope.truncate == b.rope.truncate);
}

}  // namespace

TEST_CASE("the released gpt-oss-20b configuration is read completely") {
  const ModelConfig config = parse(released());
  CHECK(config.family == "gpt_oss");
  CHECK(config.vocab_size == 201088);
  CHECK(config.hidden_size == 2880);
  CHECK(config.num_layers == 24);
  CHECK(config.num_heads == 64);
  CHECK(config.num_kv_heads == 8);
  CHECK(config.head_size == 64);
  CHECK(config.intermediate_size == 2880);
  CHECK(config.num_experts == 32);
  CHECK(config.router.options.top_k == 4);
  CHECK(config.rms_norm_epsilon == 1e-5);
  CHECK_FALSE(config.tied_embeddings);
  CHECK(config.attention_bias);
  CHECK(config.swiglu_limit == 7.0);
  CHECK(config.router_aux_loss_coef == 0.9);
  CHECK(config.padding_id == 199999);
  CHECK(config.rope.variant == RopeVariant::yarn);
  CHECK(config.rope.theta == 150000.0);
  CHECK(config.rope.factor == 32.0);
  CHECK_FALSE(config.rope.truncate);
  CHECK(config.rope.attention_factor == 0.0);
  CHECK(config.attention_scale == 0.125);
  CHECK(config.router.name == "mlp.router");
  CHECK(config.activation == tessera::kernel::Activation::clamped_swiglu);
}

TEST_CASE("parameters of the released models are counted exactly") {
  CHECK(num_parameters(parse(released())) == 20914757184);
  CHECK(
      describe(parse(released())) ==
      "gpt_oss, 24 layers, hidden 2880, 32 experts (top 4), 20.91 B parameters, 4.19 B per token");
  json config = released();
  config["num_hidden_layers"] = 36;
  config["num_local_experts"] = 128;
  CHECK(num_parameters(parse(config)) == 116829156672);
  config["tie_word_embeddings"] = true;
  CHECK(num_parameters(parse(config)) == 116829156672 - 201088LL * 2880);
}

TEST_CASE("both spellings give the same model, and may stand side by side") {
  check_equal(parse(released()), parse(rewritten()));
  json both = released();
  both.update(rewritten());
  both["num_experts"] = 32;
  check_equal(parse(released()), parse(both));
  json type = yarn();
  type["type"] = type["rope_type"];
  type.erase("rope_type");
  check_equal(parse(released()), parse_with("rope_scaling", type));
}

TEST_CASE("absent keys take the defaults of transformers") {
  const ModelConfig config = parse({{"model_type", "gpt_oss"}});
  CHECK(config.num_layers == 36);
  CHECK(config.num_experts == 128);
  CHECK(config.router_aux_loss_coef == 0.001);
  CHECK(config.padding_id == -1);
  CHECK(config.layer_window[0] == 128);
  CHECK(config.layer_window[1] == 0);
  CHECK(config.rope.variant == RopeVariant::yarn);
  CHECK(config.rope.factor == 32.0);
  CHECK_FALSE(config.rope.truncate);
  json derived = released();
  derived["head_dim"] = nullptr;
  derived["num_attention_heads"] = 48;
  CHECK(parse(derived).head_size == 60);
}

TEST_CASE("a rope object without a type is plain, one without truncate rounds its range") {
  json empty = released();
  empty.erase("rope_scaling");
  empty["rope_parameters"] = json::object();
  CHECK(parse(empty).rope.variant == RopeVariant::plain);
  json scaling = yarn();
  scaling.erase("truncate");
  scaling.erase("original_max_position_embeddings");
  CHECK(parse_with("rope_scaling", scaling).rope.truncate);
  CHECK(parse_with("rope_scaling", scaling).rope.original_max_position == 131072);
  CHECK(parse_with("rope_scaling", nullptr).rope.variant == RopeVariant::yarn);
  CHECK(parse_with("rope_scaling", json::object()).rope.variant == RopeVariant::yarn);
}

TEST_CASE("layer_types decides which layers slide") {
  json config = released();
  config["num_hidden_layers"] = 3;
  config["layer_types"] = {"full_attention", "sliding_attention", "full_attention"};
  CHECK(parse(config).layer_window == std::vector<std::int64_t>{0, 128, 0});
  config["layer_types"][1] = "linear_attention";
  CHECK_THAT(refusal_of_text(config.dump()), Catch::Contains("linear_attention"));
  config["layer_types"] = {"full_attention"};
  CHECK_THAT(refusal_of_text(config.dump()), Catch::Contains("layer_types"));
  config["layer_types"] = {"full_attention", "full_attention", "full_attention"};
  config["sliding_window"] = nullptr;
  CHECK(parse(config).layer_window == std::vector<std::int64_t>{0, 0, 0});
  config.erase("layer_types");
  CHECK_THAT(refusal_of_text(config.dump()), Catch::Contains("sliding_window"));
}

TEST_CASE("spellings that disagree are refused by name") {
  json both = released();
  both.update(rewritten());
  both["rope_parameters"]["factor"] = 16.0;
  CHECK_THAT(refusal_of_text(both.dump()), Catch::Contains("factor is 16"));
  both["rope_parameters"] = yarn();
  both["rope_parameters"]["rope_theta"] = 10000.0;
  CHECK_THAT(refusal_of_text(both.dump()), Catch::Contains("rope_theta"));
  CHECK_THAT(refusal("dtype", "float32"), Catch::Contains("torch_dtype"));
  CHECK_THAT(refusal("num_experts", 16), Catch::Contains("num_experts"));
  CHECK_THAT(refusal("experts_per_token", 2), Catch::Contains("experts_per_token"));
  CHECK_THAT(rope_refusal("type", "linear"), Catch::Contains("rope_type"));
  CHECK_THAT(refusal("original_max_position_embeddings", 8192),
             Catch::Contains("original_max_position_embeddings"));
}

TEST_CASE("what changes the mathematics and is not implemented is refused by name") {
  CHECK_THAT(refusal("quantization_config", {{"quant_method", "gptq"}}),
             Catch::Contains("quantization_config") && Catch::Contains("gptq"));
  CHECK_THAT(refusal("hidden_act", "gelu"), Catch::Contains("hidden_act"));
  CHECK_THAT(refusal("attention_dropout", 0.1), Catch::Contains("attention_dropout"));
  CHECK_THAT(refusal("model_type", "mamba"), Catch::Contains("mamba"));
  CHECK_THAT(refusal("final_logit_softcapping", 30.0), Catch::Contains("final_logit_softcapping"));
  CHECK_THAT(rope_refusal("rope_type", "su"), Catch::Contains("su"));
  CHECK_THAT(rope_refusal("partial_rotary_factor", 0.5), Catch::Contains("partial_rotary_factor"));
  CHECK_THAT(rope_refusal("long_factor", json::array({1.0})),
             Catch::Contains("rope_scaling.long_factor"));
}

TEST_CASE("values out of range are refused by name") {
  CHECK_THAT(refusal("hidden_size", 0), Catch::Contains("hidden_size"));
  CHECK_THAT(refusal("vocab_size", -1), Catch::Contains("vocab_size"));
  CHECK_THAT(refusal("vocab_size", std::uint64_t{18446744073709551615u}),
             Catch::Contains("18446744073709551615"));
  CHECK_THAT(refusal("num_hidden_layers", std::int64_t{1} << 40),
             Catch::Contains("num_hidden_layers"));
  CHECK_THAT(refusal("num_key_value_heads", 7), Catch::Contains("multiple of num_key_value_heads"));
  CHECK_THAT(refusal("num_experts_per_tok", 33), Catch::Contains("num_experts_per_tok"));
  CHECK_THAT(refusal("head_dim", 63), Catch::Contains("head_dim"));
  CHECK_THAT(refusal("rms_norm_eps", 0.0), Catch::Contains("rms_norm_eps"));
  CHECK_THAT(refusal("swiglu_limit", -7.0), Catch::Contains("swiglu_limit"));
  CHECK_THAT(refusal("sliding_window", 0), Catch::Contains("sliding_window"));
  CHECK_THAT(refusal("pad_token_id", 201088), Catch::Contains("pad_token_id"));
  CHECK_THAT(rope_refusal("factor", 0.0), Catch::Contains("rope_scaling.factor"));
  json config = released();
  config["hidden_size"] = config["intermediate_size"] = 1 << 24;
  CHECK_THAT(refusal_of_text(config.dump()), Catch::Contains("parameters"));
}

TEST_CASE("ill-typed, missing and repeated keys and broken JSON are refused") {
  CHECK_THAT(refusal("hidden_size", "2880"), Catch::Contains("hidden_size must be an integer"));
  CHECK_THAT(refusal("hidden_size", 2880.0), Catch::Contains("hidden_size must be an integer"));
  CHECK_THAT(refusal("hidden_size", nullptr), Catch::Contains("hidden_size must be an integer"));
  CHECK_THAT(refusal("tie_word_embeddings", 1), Catch::Contains("tie_word_embeddings"));
  CHECK_THAT(refusal("rope_scaling", 5), Catch::Contains("rope_scaling must be an object"));
  CHECK_THAT(refusal_of_text("{}"), Catch::Contains("model_type is missing"));
  CHECK_THAT(refusal_of_text("{\"model_type\": \"gpt_oss\""), Catch::Contains("not valid JSON"));
  CHECK_THAT(refusal_of_text("[1]"), Catch::Contains("one JSON object"));
  CHECK_THAT(refusal_of_text(R"({"model_type": "gpt_oss", "vocab_size": 5, "vocab_size": 6})"),
             Catch::Contains("'vocab_size' occurs twice"));
  json scaling = yarn();
  scaling.erase("factor");
  CHECK_THAT(refusal("rope_scaling", scaling), Catch::Contains("rope_scaling.factor is missing"));
}

TEST_CASE("a configuration that is too large or nested too deep is refused") {
  CHECK_THAT(refusal_of_text("{}" + std::string(1 << 20, ' ')),
             Catch::Contains("more than the limit"));
  CHECK_THAT(refusal_of_text(R"({"a": )" + std::string(5000, '[') + std::string(5000, ']') + "}"),
             Catch::Contains("nested deeper"));
}

TEST_CASE("Vocabulary matrices are cut above half a GiB alone, into blocks of whole rows") {
  const ModelConfig large = parse(released());
  CHECK(large.vocabulary_chunk > 0);
  CHECK(large.vocabulary_chunk * large.hidden_size * 4 <= 128 << 20);
  CHECK(large.vocabulary_chunk * large.hidden_size % 64 == 0);
  json small = released();
  small["hidden_size"] = 48;
  small["vocab_size"] = 200003;  // no block of rows divides it
  CHECK(parse(small).vocabulary_chunk == 0);
}

TEST_CASE("the environment chooses the vocabulary's chunk, by a whole number alone") {
  const std::int64_t usual = parse(released()).vocabulary_chunk;
  const auto chosen = [](const char* text) {
    setenv("TESSERA_VOCABULARY_CHUNK", text, 1);
    std::int64_t rows = -1;
    try {
      rows = parse(released()).vocabulary_chunk;
    } catch (const tessera::Error& error) {
      CHECK(error.kind() == tessera::ErrorKind::usage);
      CHECK_THAT(error.what(),
                 Catch::Contains("TESSERA_VOCABULARY_CHUNK is '" + std::string(text) + "'"));
    }
    unsetenv("TESSERA_VOCABULARY_CHUNK");
    return rows;
  };
  CHECK(chosen("1000") == 1000);
  CHECK(chosen("0") == 0);
  CHECK(chosen("") == usual);
  for (const char* text : {"many", "16 rows", "1e3", "-1", "99999999999999999999"}) {
    CHECK(chosen(text) == -1);
  }
}
