// SPDX-License-Identifier: Apache-2.0
// Released configurations of every family, what each family reads and what it refuses by name.
#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "family_released.hpp"
#include "tessera/model/config.hpp"

using Catch::Contains;
using nlohmann::json;
using namespace tessera::model;
using namespace tessera::test;

namespace {

ModelConfig parse(const json& config) { return parse_config(config.dump(), "config.json"); }

ModelConfig parse_with(json config, const char* key, const json& value) {
  config[key] = value;
  return parse(config);
}

/// The message that `config` with one key changed is refused with; empty when it is accepted.
std::string refusal(json config, const char* key, const json& value) {
  config[key] = value;
  try {
    parse(config);
  } catch (const tessera::Error& error) {
    CHECK(error.kind() == tessera::ErrorKind::config);
    return error.what();
  }
  return "";
}

json yarn_of_deepseek() { return deepseek_v3()["rope_scaling"]; }

std::int64_t num_sliding(const ModelConfig& config) {
  return std::count_if(config.layer_window.begin(), config.layer_window.end(),
                       [](std::int64_t window) { return window != 0; });
}

std::int64_t num_layers_with_experts(const ModelConfig& config) {
  return std::count(config.layer_has_experts.begin(), config.layer_has_experts.end(), true);
}

}  // namespace

TEST_CASE("released models have the parameters that were published") {
  CHECK(num_parameters(parse(mixtral_8x7b())) == 46702792704);
  CHECK(num_parameters(parse(qwen3_30b_a3b())) == 30532122624);
  CHECK(num_parameters(parse(olmoe_1b_7b())) == 6919161856);
  CHECK(num_parameters(parse(deepseek_v3())) == 671026419200);
  CHECK(num_parameters(parse(llama_3_1_8b())) == 8030261248);
  CHECK(num_parameters(parse(qwen3_8b())) == 8190735360);
  CHECK(num_parameters(parse(original_gpt_oss_20b())) == 20914757184);
}

TEST_CASE("a line describes dense, latent and mixture models") {
  CHECK(describe(parse(llama_3_1_8b())) == "llama, 32 layers, hidden 4096, 8.03 B parameters");
  CHECK(describe(parse(mixtral_8x7b())) ==
        "mixtral, 32 layers, hidden 4096, 8 experts (top 2), 46.70 B parameters, 12.88 B per "
        "token");
  CHECK(describe(parse(deepseek_v3())) ==
        "deepseek_v3, 61 layers, hidden 7168, latent attention, 256 experts (top 8), 671.03 B "
        "parameters, 37.55 B per token");
}

TEST_CASE("Mixtral is read completely") {
  const ModelConfig config = parse(mixtral_8x7b());
  CHECK(config.head_size == 128);
  CHECK(config.num_experts == 8);
  CHECK(config.intermediate_size == 14336);
  CHECK(config.router.name == "mlp.gate");
  CHECK(config.router.options.top_k == 2);
  CHECK(config.router.options.score == tessera::moe::RouterScore::softmax);
  CHECK(config.router.options.normalize_chosen);
  CHECK(config.rope.theta == 1e6);
  CHECK(config.has_aux_loss);
  CHECK(config.router_aux_loss_coef == 0.02);
  CHECK(num_sliding(config) == 0);
  CHECK(parse_with(mixtral_8x7b(), "sliding_window", 4096).layer_window ==
        std::vector<std::int64_t>(32, 4096));
}

TEST_CASE("Qwen3-MoE is read completely, its layers without experts too") {
  const ModelConfig config = parse(qwen3_30b_a3b());
  CHECK(config.head_size == 128);
  CHECK(config.query_key_norm == QueryKeyNorm::head);
  CHECK(config.intermediate_size == 768);
  CHECK(config.dense_intermediate_size == 6144);
  CHECK(config.router.options.normalize_chosen);
  CHECK(num_layers_with_experts(config) == 48);
  CHECK(num_layers_with_experts(parse_with(qwen3_30b_a3b(), "decoder_sparse_step", 5)) == 9);
  const ModelConfig skipping = parse_with(qwen3_30b_a3b(), "mlp_only_layers", {0, 47, 90});
  CHECK(num_layers_with_experts(skipping) == 46);
  CHECK_FALSE(skipping.layer_has_experts[47]);
  const ModelConfig dense = parse_with(qwen3_30b_a3b(), "decoder_sparse_step", 49);
  CHECK(dense.num_experts == 0);
  CHECK(describe(dense).find("experts") == std::string::npos);
  CHECK_THAT(refusal(qwen3_30b_a3b(), "mlp_only_layers", {"0"}), Contains("mlp_only_layers"));
  CHECK_THAT(refusal(qwen3_30b_a3b(), "mlp_only_layers", 3), Contains("mlp_only_layers"));
}

TEST_CASE("Qwen's windows slide only where they are in use") {
  json moe = qwen3_30b_a3b();
  moe["sliding_window"] = 4096;
  CHECK(num_sliding(parse(moe)) == 0);
  moe["use_sliding_window"] = true;  // of Qwen3-MoE all layers slide then, as in transformers
  CHECK(num_sliding(parse(moe)) == 48);
  CHECK_THAT(refusal(moe, "layer_types", json::array()), Contains("layer_types"));
  json dense = qwen3_8b();
  dense["sliding_window"] = 4096;
  dense["use_sliding_window"] = true;
  dense["max_window_layers"] = 30;
  CHECK(num_sliding(parse(dense)) == 6);
  CHECK(parse(dense).layer_window[29] == 0);
  CHECK(parse(dense).layer_window[30] == 4096);
  dense["layer_types"] = json(std::vector<std::string>(36, "sliding_attention"));
  CHECK(num_sliding(parse(dense)) == 36);
  CHECK_THAT(refusal(dense, "use_sliding_window", false), Contains("sliding_window"));
}

TEST_CASE("OLMoE normalises and clamps whole projections") {
  const ModelConfig config = parse(olmoe_1b_7b());
  CHECK(config.query_key_norm == QueryKeyNorm::projection);
  CHECK(config.clip_qkv == 0.0);
  CHECK(config.padding_id == 1);
  CHECK_FALSE(config.router.options.normalize_chosen);
  CHECK(parse_with(olmoe_1b_7b(), "clip_qkv", 8.0).clip_qkv == 8.0);
  CHECK(parse_with(olmoe_1b_7b(), "pad_token_id", nullptr).padding_id == -1);
  CHECK(parse_with(olmoe_1b_7b(), "num_key_value_heads", nullptr).num_kv_heads == 16);
  CHECK_THAT(refusal(olmoe_1b_7b(), "head_dim", 64), Contains("head_dim 64"));
}

TEST_CASE("DeepSeek-V3 is read completely") {
  const ModelConfig config = parse(deepseek_v3());
  CHECK(config.is_latent());
  CHECK(config.latent.query_rank == 1536);
  CHECK(config.latent.key_value_rank == 512);
  CHECK(config.head_size == 192);
  CHECK(config.value_size == 128);
  CHECK(config.rope.interleaved);
  CHECK(config.rope.variant == RopeVariant::yarn);
  CHECK(config.attention_scale == Approx(0.1352337788608801));
  CHECK(config.num_experts == 256);
  CHECK(config.shared_intermediate_size == 2048);
  CHECK(config.dense_intermediate_size == 18432);
  CHECK(num_layers_with_experts(config) == 58);
  CHECK_FALSE(config.layer_has_experts[2]);
  CHECK(config.router.has_correction_bias);
  CHECK(config.router.options.score == tessera::moe::RouterScore::sigmoid);
  CHECK(config.router.options.scale == 2.5);
  CHECK(config.router.options.num_groups == 8);
  CHECK(config.router.options.num_kept_groups == 4);
  CHECK_FALSE(config.has_aux_loss);
}

TEST_CASE("DeepSeek-V3 without query rank, shared experts or scaled rotation is another model") {
  CHECK(parse_with(deepseek_v3(), "q_lora_rank", nullptr).latent.query_rank == 0);
  CHECK(parse_with(deepseek_v3(), "n_shared_experts", nullptr).shared_intermediate_size == 0);
  CHECK(parse_with(deepseek_v3(), "n_shared_experts", 0).shared_intermediate_size == 0);
  CHECK(parse_with(deepseek_v3(), "rope_scaling", nullptr).attention_scale ==
        Approx(1 / std::sqrt(192.0)));
  json scaling = yarn_of_deepseek();
  scaling.erase("mscale_all_dim");
  CHECK(parse_with(deepseek_v3(), "rope_scaling", scaling).attention_scale ==
        Approx(1 / std::sqrt(192.0)));
}

TEST_CASE("what DeepSeek-V3 does not implement is refused by name") {
  const json config = deepseek_v3();
  CHECK_THAT(refusal(config, "moe_layer_freq", 2), Contains("moe_layer_freq 2"));
  CHECK_THAT(refusal(config, "scoring_func", "softmax"), Contains("scoring_func \"softmax\""));
  CHECK_THAT(refusal(config, "topk_method", "greedy"), Contains("topk_method"));
  CHECK_THAT(refusal(config, "pretraining_tp", 2), Contains("pretraining_tp"));
  CHECK_THAT(refusal(config, "num_key_value_heads", 8), Contains("num_key_value_heads is 8"));
  CHECK_THAT(refusal(config, "head_dim", 128), Contains("head_dim is 128"));
  CHECK_THAT(refusal(config, "n_group", 3), Contains("n_group 3"));
  CHECK_THAT(refusal(config, "n_group", 256), Contains("n_group 256"));
  CHECK_THAT(refusal(config, "topk_group", 9), Contains("topk_group 9"));
  CHECK_THAT(refusal(config, "num_experts_per_tok", 129), Contains("num_experts_per_tok 129"));
  CHECK_THAT(refusal(config, "qk_rope_head_dim", 63), Contains("qk_rope_head_dim 63"));
  CHECK_THAT(refusal(config, "num_experts", 256), Contains("num_experts is not a key"));
  CHECK_THAT(refusal(config, "num_local_experts", 8), Contains("n_routed_experts"));
}

TEST_CASE("a key that another family implements is refused where this one does not") {
  CHECK_THAT(refusal(mixtral_8x7b(), "norm_topk_prob", false), Contains("norm_topk_prob"));
  CHECK_THAT(refusal(mixtral_8x7b(), "attention_bias", true), Contains("attention_bias"));
  CHECK_THAT(refusal(mixtral_8x7b(), "router_jitter_noise", 0.1), Contains("router_jitter_noise"));
  CHECK_THAT(refusal(qwen3_30b_a3b(), "clip_qkv", 8.0), Contains("clip_qkv"));
  CHECK_THAT(refusal(qwen3_30b_a3b(), "mlp_bias", true), Contains("mlp_bias"));
  CHECK_THAT(refusal(qwen3_30b_a3b(), "hidden_act", "gelu"), Contains("hidden_act"));
  CHECK_THAT(refusal(olmoe_1b_7b(), "sliding_window", 8), Contains("sliding_window"));
  CHECK_THAT(refusal(olmoe_1b_7b(), "n_shared_experts", 1), Contains("n_shared_experts"));
  CHECK_THAT(refusal(llama_3_1_8b(), "sliding_window", 8), Contains("sliding_window"));
  CHECK_THAT(refusal(llama_3_1_8b(), "pretraining_tp", 2), Contains("pretraining_tp"));
  CHECK_THAT(refusal(llama_3_1_8b(), "attention_dropout", 0.5), Contains("attention_dropout"));
  CHECK_THAT(refusal(qwen3_8b(), "num_experts", 8), Contains("num_experts"));
  CHECK_THAT(refusal(qwen3_8b(), "swiglu_limit", 7.0), Contains("swiglu_limit"));
}

TEST_CASE("rotary scaling is read for each variant, and refused with a reason") {
  const ModelConfig llama = parse(llama_3_1_8b());
  CHECK(llama.rope.variant == RopeVariant::llama3);
  CHECK(llama.rope.factor == 8.0);
  CHECK(llama.rope.low_frequency_factor == 1.0);
  CHECK(llama.rope.high_frequency_factor == 4.0);
  CHECK(llama.rope.original_max_position == 8192);
  CHECK_FALSE(llama.rope.interleaved);
  const json linear = {{"type", "linear"}, {"factor", 4.0}};
  CHECK(parse_with(qwen3_8b(), "rope_scaling", linear).rope.variant == RopeVariant::linear);
  CHECK(parse_with(qwen3_8b(), "rope_scaling", linear).rope.factor == 4.0);
  CHECK_THAT(refusal(qwen3_8b(), "rope_scaling", {{"type", "linear"}}),
             Contains("rope_scaling.factor is missing"));
  CHECK_THAT(refusal(qwen3_8b(), "rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}),
             Contains("'dynamic'") && Contains("reproducible"));
  CHECK_THAT(refusal(qwen3_8b(), "rope_scaling", {{"rope_type", "longrope"}}),
             Contains("'longrope'"));
  CHECK_THAT(refusal(qwen3_8b(), "partial_rotary_factor", 0.5), Contains("partial_rotary_factor"));
  json scaling = llama_3_1_8b()["rope_scaling"];
  scaling["high_freq_factor"] = 1.0;
  CHECK_THAT(refusal(llama_3_1_8b(), "rope_scaling", scaling), Contains("high_freq_factor"));
  scaling.erase("low_freq_factor");
  CHECK_THAT(refusal(llama_3_1_8b(), "rope_scaling", scaling), Contains("low_freq_factor"));
}

TEST_CASE("absent keys have the defaults of transformers' configuration classes") {
  struct Defaults {
    const char* family;
    std::int64_t num_parameters, max_position;
    double epsilon, aux_loss_coef;
    std::int64_t padding_id;
    bool normalize_chosen, has_aux_loss;
    double theta;
  };
  const Defaults all[] = {
      {"deepseek_v3", 671026419200, 4096, 1e-6, 0, -1, true, false, 1e4},
      {"gpt_oss", 116829156672, 131072, 1e-5, 0.001, -1, true, true, 150000},
      {"llama", 6738415616, 2048, 1e-6, 0, -1, true, false, 1e4},
      {"mixtral", 46702792704, 131072, 1e-5, 0.001, -1, true, true, 1e6},
      {"olmoe", 13361612800, 4096, 1e-5, 0.01, 1, false, true, 1e4},
      {"qwen3", 12049461248, 32768, 1e-6, 0, -1, true, false, 1e4},
      {"qwen3_moe", 15350731776, 32768, 1e-6, 0.001, -1, false, true, 1e4},
  };
  for (const Defaults& defaults : all) {
    INFO(defaults.family);
    const ModelConfig config = parse({{"model_type", defaults.family}});
    CHECK(num_parameters(config) == defaults.num_parameters);
    CHECK(config.max_position == defaults.max_position);
    CHECK(config.rms_norm_epsilon == defaults.epsilon);
    CHECK(config.router_aux_loss_coef == defaults.aux_loss_coef);
    CHECK(config.padding_id == defaults.padding_id);
    CHECK(config.router.options.normalize_chosen == defaults.normalize_chosen);
    CHECK(config.has_aux_loss == defaults.has_aux_loss);
    CHECK(config.rope.theta == defaults.theta);
    CHECK(num_sliding(config) == (config.family == "gpt_oss" ? 18 : 0));
  }
}

TEST_CASE("a key at the value that switches it off is accepted") {
  CHECK(refusal(mixtral_8x7b(), "router_jitter_noise", 0.0).empty());
  CHECK(refusal(mixtral_8x7b(), "num_experts", 8).empty());
  CHECK(refusal(qwen3_8b(), "partial_rotary_factor", 1.0).empty());
  CHECK(refusal(llama_3_1_8b(), "head_dim", nullptr).empty());
  CHECK(refusal(deepseek_v3(), "q_lora_rank", nullptr).empty());
}

TEST_CASE("the spelling of transformers 5 gives the same DeepSeek-V3") {
  json config = deepseek_v3();
  config["rope_parameters"] = yarn_of_deepseek();
  config["rope_parameters"]["rope_theta"] = 10000.0;
  config["num_local_experts"] = 256;
  config["head_dim"] = 64;
  config["qk_head_dim"] = 192;
  config["num_mtp_layers"] = 1;
  config["dtype"] = "bfloat16";
  for (const char* key : {"rope_scaling", "rope_theta", "torch_dtype", "n_routed_experts"}) {
    config.erase(key);
  }
  const ModelConfig rewritten = parse(config), released = parse(deepseek_v3());
  CHECK(rewritten.num_experts == released.num_experts);
  CHECK(rewritten.attention_scale == released.attention_scale);
  CHECK(rewritten.rope.factor == released.rope.factor);
  CHECK(num_parameters(rewritten) == num_parameters(released));
}

TEST_CASE("packed weights are accepted where they can be read, and refused by name elsewhere") {
  const json fp8 = deepseek_v3()["quantization_config"];
  CHECK(refusal(llama_3_1_8b(), "quantization_config", fp8).empty());
  const auto refused = [&](const char* key, const json& value) {
    json changed = fp8;
    changed[key] = value;
    return refusal(deepseek_v3(), "quantization_config", changed);
  };
  CHECK_THAT(refused("fmt", "e5m2"), Contains("quantization_config") && Contains("e5m2"));
  CHECK_THAT(refused("weight_block_size", {64, 64}), Contains("[64,64]"));
  CHECK_THAT(refused("weight_block_size", nullptr), Contains("weight_block_size"));
  CHECK_THAT(refused("quant_method", "gptq"), Contains("gptq"));
  CHECK_THAT(refused("quant_method", nullptr), Contains("quantization_config"));
  CHECK_THAT(refused("quant_method", "mxfp4"), Contains("mxfp4") && Contains("deepseek_v3"));
}

TEST_CASE("more experts than any model has are refused before they become memory") {
  json config = {{"model_type", "mixtral"},
                 {"hidden_size", 2},
                 {"intermediate_size", 1},
                 {"vocab_size", 1},
                 {"head_dim", 2},
                 {"num_attention_heads", 1},
                 {"num_key_value_heads", 1},
                 {"num_hidden_layers", 65536}};
  CHECK_THAT(refusal(config, "num_local_experts", 65536), Contains("num_local_experts"));
}
