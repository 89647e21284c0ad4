// SPDX-License-Identifier: Apache-2.0
// Names, shapes and places of every family's parameters, against what transformers has and writes.
#include "tessera/model/parameter_units.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <sstream>

#include "base/error.hpp"
#include "family_tensors.hpp"

using namespace tessera;
using namespace tessera::model;

namespace {

using Tensors = std::map<std::string, Shape>;

Tensors parse_tensors(const std::string& lines) {
  Tensors tensors;
  std::istringstream stream(lines);
  std::string line;
  while (std::getline(stream, line)) {
    std::istringstream fields(line);
    std::string name;
    if (!(fields >> name)) continue;
    std::int64_t size = 0;
    while (fields >> size) tensors[name].push_back(size);
  }
  return tensors;
}

ModelConfig config_of(const std::string& name) {
  for (const test::FamilyTensors& family : test::family_tensors()) {
    if (family.name == name) return parse_config(family.config, "config.json");
  }
  throw std::invalid_argument(name);
}

std::map<std::string, Parameter> parameters_of(const ModelConfig& config,
                                               Naming naming = Naming::hugging_face) {
  std::map<std::string, Parameter> by_name;
  for (const Parameter& parameter : all_parameters(parameter_units(config, naming))) {
    by_name[parameter.name] = parameter;
  }
  return by_name;
}

std::vector<std::string> part_names(const Parameter& parameter) {
  std::vector<std::string> names;
  for (const StoredPart& part : parameter.stored_parts()) names.push_back(part.tensor);
  return names;
}

/// The parts follow each other and together are the parameter.
void check_complete(const Parameter& parameter) {
  std::int64_t next = 0;
  for (const StoredPart& part : parameter.stored_parts()) {
    CHECK(part.begin == next);
    CHECK(part.tensor_begin + part.size <= num_elements(part.shape));
    next += part.size;
  }
  CHECK(next == parameter.size());
}

}  // namespace

TEST_CASE("every family has the parameters that transformers has in memory") {
  for (const test::FamilyTensors& family : test::family_tensors()) {
    INFO(family.name);
    Tensors expected = parse_tensors(family.in_both);
    expected.merge(parse_tensors(family.in_memory_only));
    Tensors found;
    for (const Parameter& p : all_parameters(parameter_units(config_of(family.name)))) {
      INFO(p.name);
      CHECK(found.emplace(p.name, p.checkpoint_shape()).second);
    }
    CHECK(found == expected);
  }
}

TEST_CASE("every family's checkpoint has the tensors that transformers writes") {
  for (const test::FamilyTensors& family : test::family_tensors()) {
    INFO(family.name);
    Tensors expected = parse_tensors(family.in_both);
    expected.merge(parse_tensors(family.in_checkpoint_only));
    Tensors found;
    for (const Parameter& p : all_parameters(parameter_units(config_of(family.name)))) {
      INFO(p.name);
      check_complete(p);
      for (const StoredPart& part : p.stored_parts()) {
        CHECK(found.emplace(part.tensor, part.shape).second);
      }
    }
    CHECK(found == expected);
  }
}

TEST_CASE("the parameters are as many as num_parameters says") {
  for (const test::FamilyTensors& family : test::family_tensors()) {
    INFO(family.name);
    std::int64_t total = 0;
    for (const auto& [name, parameter] : parameters_of(config_of(family.name))) {
      total += parameter.size();
    }
    CHECK(num_parameters(config_of(family.name)) == total);
  }
}

TEST_CASE("of an expert's fused matrix the gate's rows come first, then the up projection's") {
  const auto mixtral = parameters_of(config_of("mixtral"));
  const std::string moe = "model.layers.0.block_sparse_moe.experts.";
  const Parameter& gate_up = mixtral.at("model.layers.0.mlp.experts.gate_up_proj");
  CHECK(part_names(gate_up) == std::vector<std::string>{moe + "0.w1.weight", moe + "0.w3.weight",
                                                        moe + "1.w1.weight", moe + "1.w3.weight"});
  CHECK(gate_up.stored_parts()[3].begin == 3 * 5 * 12);
  for (const std::string family : {"qwen3_moe", "olmoe", "deepseek_v3"}) {
    for (const auto& [name, parameter] : parameters_of(config_of(family))) {
      if (name.find("experts.gate_up_proj") == std::string::npos) continue;
      INFO(family << " " << name);
      const std::string prefix = name.substr(0, name.find("gate_up_proj"));
      CHECK(part_names(parameter) ==
            std::vector<std::string>{prefix + "0.gate_proj.weight", prefix + "0.up_proj.weight",
                                     prefix + "1.gate_proj.weight", prefix + "1.up_proj.weight"});
    }
  }
}

TEST_CASE("norms, biases and sinks have no weight decay, buffers are not trained") {
  for (const test::FamilyTensors& family : test::family_tensors()) {
    for (const auto& [name, p] : parameters_of(config_of(family.name))) {
      INFO(family.name << " " << name);
      const bool is_matrix = p.shape.size() == (p.is_expert ? 3u : 2u);
      const bool is_buffer = name.find("e_score_correction_bias") != std::string::npos;
      CHECK(p.weight_decay == is_matrix);
      CHECK(p.trainable == !is_buffer);
      CHECK(p.is_expert == (name.find(".mlp.experts.") != std::string::npos));
      CHECK(p.may_be_mxfp4 == (p.is_expert && is_matrix && family.name == std::string("gpt_oss")));
      CHECK(p.transposed == p.may_be_mxfp4);
    }
  }
}

TEST_CASE("the original names of gpt-oss fuse queries, keys and values") {
  const ModelConfig config = config_of("gpt_oss");
  const auto original = parameters_of(config, Naming::original);
  const auto part = [&](const std::string& name) {
    const auto parts = original.at("model.layers.0." + name).stored_parts();
    CHECK(parts.size() == 1);
    return parts[0];
  };
  const StoredPart values = part("self_attn.v_proj.weight");
  CHECK(values.tensor == "block.0.attn.qkv.weight");
  CHECK(values.shape == Shape{32, 12});
  CHECK(values.tensor_begin == 24 * 12);
  CHECK(values.size == 8 * 12);
  CHECK(part("self_attn.q_proj.bias").tensor_begin == 0);
  CHECK(part("self_attn.k_proj.bias").tensor_begin == 16);
  CHECK(part("mlp.experts.gate_up_proj").tensor == "block.0.mlp.mlp1_weight");
  CHECK(part("mlp.experts.gate_up_proj").shape == Shape{2, 10, 12});
  CHECK_FALSE(original.at("model.layers.0.mlp.experts.down_proj").transposed);
  CHECK(original.at("model.layers.0.mlp.experts.down_proj").may_be_mxfp4);
  CHECK(part("mlp.router.weight").tensor == "block.0.mlp.gate.weight");
  CHECK(part("post_attention_layernorm.weight").tensor == "block.0.mlp.norm.scale");
  CHECK(original.at("lm_head.weight").stored[0].tensor == "unembedding.weight");
  std::int64_t total = 0;
  for (const auto& [name, parameter] : original) {
    check_complete(parameter);
    total += parameter.size();
  }
  CHECK(total == num_parameters(config));
}

TEST_CASE("the naming of a checkpoint is told by its tensors") {
  const ModelConfig config = config_of("gpt_oss");
  CHECK(detect_naming(config, {"embedding.weight", "block.0.attn.qkv.weight", "lm_head.weight"}) ==
        Naming::original);
  CHECK(detect_naming(config, {"model.norm.weight", "model.embed_tokens.weight", "norm.scale"}) ==
        Naming::hugging_face);
  CHECK(detect_naming(config_of("llama"), {"block.0.attn.qkv.weight"}) == Naming::hugging_face);
  CHECK_THROWS_WITH(parameter_units(config_of("llama"), Naming::original),
                    Catch::Contains("llama has no original names"));
}

TEST_CASE("prediction layers, inv_freq and tied matrices are named as never read") {
  const auto ignored = ignored_tensors(config_of("deepseek_v3"));
  const auto has = [&](const std::string& pattern) {
    return std::find(ignored.begin(), ignored.end(), pattern) != ignored.end();
  };
  CHECK(has("*.rotary_emb.inv_freq"));
  CHECK(has("model.layers.2.*"));
  CHECK(has("model.layers.3.*"));
  CHECK_FALSE(has("model.layers.1.*"));
  CHECK(ignored_tensors(config_of("llama")).size() == 1);
  CHECK(tied_tensors(config_of("qwen3, tied")) == std::vector<std::string>{"lm_head.weight"});
  CHECK(tied_tensors(config_of("llama")).empty());
}

TEST_CASE("a layer without experts has no expert unit, and the index knows") {
  const ModelConfig config = config_of("deepseek_v3");
  const auto units = parameter_units(config);
  const UnitIndex index(config);
  CHECK(units.size() == 5);
  CHECK(units[UnitIndex::embedding].name == "embedding");
  CHECK(units[index.dense(0)].name == "layers.0");
  CHECK(units[index.dense(1)].name == "layers.1");
  CHECK(units[index.expert(1)].name == "layers.1.expert");
  CHECK(units[index.head()].name == "head");
}

TEST_CASE("the units of gpt-oss keep the order that existing files have") {
  std::vector<std::string> names;
  for (const auto& unit : parameter_units(config_of("gpt_oss"))) {
    for (const Parameter& p : unit.parameters) names.push_back(p.name);
  }
  const std::string layer = "model.layers.0.";
  CHECK(names == std::vector<std::string>{"model.embed_tokens.weight",
                                          layer + "input_layernorm.weight",
                                          layer + "self_attn.q_proj.weight",
                                          layer + "self_attn.q_proj.bias",
                                          layer + "self_attn.k_proj.weight",
                                          layer + "self_attn.k_proj.bias",
                                          layer + "self_attn.v_proj.weight",
                                          layer + "self_attn.v_proj.bias",
                                          layer + "self_attn.sinks",
                                          layer + "self_attn.o_proj.weight",
                                          layer + "self_attn.o_proj.bias",
                                          layer + "post_attention_layernorm.weight",
                                          layer + "mlp.router.weight",
                                          layer + "mlp.router.bias",
                                          layer + "mlp.experts.gate_up_proj",
                                          layer + "mlp.experts.gate_up_proj_bias",
                                          layer + "mlp.experts.down_proj",
                                          layer + "mlp.experts.down_proj_bias",
                                          "model.norm.weight",
                                          "lm_head.weight"});
}
