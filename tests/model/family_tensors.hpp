// SPDX-License-Identifier: Apache-2.0
// What transformers 5.23 has in memory (state_dict) and writes (save_pretrained) for tiny models of
// each family: name and shape of each tensor. Of gpt-oss the expert weights are [E, in, out] there.
#pragma once

#include <vector>

namespace tessera::test {

struct FamilyTensors {
  const char* name;
  const char* config;
  const char* in_both;  ///< one "name sizes..." a line
  const char* in_memory_only;
  const char* in_checkpoint_only;
};

inline const std::vector<FamilyTensors>& family_tensors() {
  static const std::vector<FamilyTensors> all = {
      {"gpt_oss",
       R"({"model_type": "gpt_oss", "vocab_size": 11, "hidden_size": 12, "num_attention_heads": 2,
"num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 1, "max_position_embeddings":
64, "num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size": 5,
"sliding_window": 4})",
       R"(
lm_head.weight 11 12
model.embed_tokens.weight 11 12
model.layers.0.input_layernorm.weight 12
model.layers.0.mlp.experts.down_proj 2 5 12
model.layers.0.mlp.experts.down_proj_bias 2 12
model.layers.0.mlp.experts.gate_up_proj 2 12 10
model.layers.0.mlp.experts.gate_up_proj_bias 2 10
model.layers.0.mlp.router.bias 2
model.layers.0.mlp.router.weight 2 12
model.layers.0.post_attention_layernorm.weight 12
model.layers.0.self_attn.k_proj.bias 8
model.layers.0.self_attn.k_proj.weight 8 12
model.layers.0.self_attn.o_proj.bias 12
model.layers.0.self_attn.o_proj.weight 12 16
model.layers.0.self_attn.q_proj.bias 16
model.layers.0.self_attn.q_proj.weight 16 12
model.layers.0.self_attn.sinks 2
model.layers.0.self_attn.v_proj.bias 8
model.layers.0.self_attn.v_proj.weight 8 12
model.norm.weight 12
)",
       "", ""},
      {"mixtral",
       R"({"model_type": "mixtral", "vocab_size": 11, "hidden_size": 12, "num_attention_heads": 2,
"num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 1, "max_position_embeddings":
64, "num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size": 5})",
       R"(
lm_head.weight 11 12
model.embed_tokens.weight 11 12
model.layers.0.input_layernorm.weight 12
model.layers.0.post_attention_layernorm.weight 12
model.layers.0.self_attn.k_proj.weight 8 12
model.layers.0.self_attn.o_proj.weight 12 16
model.layers.0.self_attn.q_proj.weight 16 12
model.layers.0.self_attn.v_proj.weight 8 12
model.norm.weight 12
)",
       R"(
model.layers.0.mlp.experts.down_proj 2 12 5
model.layers.0.mlp.experts.gate_up_proj 2 10 12
model.layers.0.mlp.gate.weight 2 12
)",
       R"(
model.layers.0.block_sparse_moe.experts.0.w1.weight 5 12
model.layers.0.block_sparse_moe.experts.0.w2.weight 12 5
model.layers.0.block_sparse_moe.experts.0.w3.weight 5 12
model.layers.0.block_sparse_moe.experts.1.w1.weight 5 12
model.layers.0.block_sparse_moe.experts.1.w2.weight 12 5
model.layers.0.block_sparse_moe.experts.1.w3.weight 5 12
model.layers.0.block_sparse_moe.gate.weight 2 12
)"},
      {"qwen3_moe",
       R"({"model_type": "qwen3_moe", "vocab_size": 11, "hidden_size": 12, "num_attention_heads": 2,
"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "num_experts": 2,
"num_experts_per_tok": 1, "intermediate_size": 7, "moe_intermediate_size": 5,
"mlp_only_layers": [1], "num_hidden_layers": 2, "attention_bias": true})",
       R"(
lm_head.weight 11 12
model.embed_tokens.weight 11 12
model.layers.0.input_layernorm.weight 12
model.layers.0.mlp.gate.weight 2 12
model.layers.0.post_attention_layernorm.weight 12
model.layers.0.self_attn.k_norm.weight 8
model.layers.0.self_attn.k_proj.bias 8
model.layers.0.self_attn.k_proj.weight 8 12
model.layers.0.self_attn.o_proj.bias 12
model.layers.0.self_attn.o_proj.weight 12 16
model.layers.0.self_attn.q_norm.weight 8
model.layers.0.self_attn.q_proj.bias 16
model.layers.0.self_attn.q_proj.weight 16 12
model.layers.0.self_attn.v_proj.bias 8
model.layers.0.self_attn.v_proj.weight 8 12
model.layers.1.input_layernorm.weight 12
model.layers.1.mlp.down_proj.weight 12 7
model.layers.1.mlp.gate_proj.weight 7 12
model.layers.1.mlp.up_proj.weight 7 12
model.layers.1.post_attention_layernorm.weight 12
model.layers.1.self_attn.k_norm.weight 8
model.layers.1.self_attn.k_proj.bias 8
model.layers.1.self_attn.k_proj.weight 8 12
model.layers.1.self_attn.o_proj.bias 12
model.layers.1.self_attn.o_proj.weight 12 16
model.layers.1.self_attn.q_norm.weight 8
model.layers.1.self_attn.q_proj.bias 16
model.layers.1.self_attn.q_proj.weight 16 12
model.layers.1.self_attn.v_proj.bias 8
model.layers.1.self_attn.v_proj.weight 8 12
model.norm.weight 12
)",
       R"(
model.layers.0.mlp.experts.down_proj 2 12 5
model.layers.0.mlp.experts.gate_up_proj 2 10 12
)",
       R"(
model.layers.0.mlp.experts.0.down_proj.weight 12 5
model.layers.0.mlp.experts.0.gate_proj.weight 5 12
model.layers.0.mlp.experts.0.up_proj.weight 5 12
model.layers.0.mlp.experts.1.down_proj.weight 12 5
model.layers.0.mlp.experts.1.gate_proj.weight 5 12
model.layers.0.mlp.experts.1.up_proj.weight 5 12
)"},
      {"olmoe",
       R"({"model_type": "olmoe", "vocab_size": 11, "hidden_size": 12, "num_attention_heads": 2,
"num_key_value_heads": 1, "num_hidden_layers": 1, "max_position_embeddings": 64,
"num_experts": 2, "num_experts_per_tok": 1, "intermediate_size": 5})",
       R"(
lm_head.weight 11 12
model.embed_tokens.weight 11 12
model.layers.0.input_layernorm.weight 12
model.layers.0.mlp.gate.weight 2 12
model.layers.0.post_attention_layernorm.weight 12
model.layers.0.self_attn.k_norm.weight 6
model.layers.0.self_attn.k_proj.weight 6 12
model.layers.0.self_attn.o_proj.weight 12 12
model.layers.0.self_attn.q_norm.weight 12
model.layers.0.self_attn.q_proj.weight 12 12
model.layers.0.self_attn.v_proj.weight 6 12
model.norm.weight 12
)",
       R"(
model.layers.0.mlp.experts.down_proj 2 12 5
model.layers.0.mlp.experts.gate_up_proj 2 10 12
)",
       R"(
model.layers.0.mlp.experts.0.down_proj.weight 12 5
model.layers.0.mlp.experts.0.gate_proj.weight 5 12
model.layers.0.mlp.experts.0.up_proj.weight 5 12
model.layers.0.mlp.experts.1.down_proj.weight 12 5
model.layers.0.mlp.experts.1.gate_proj.weight 5 12
model.layers.0.mlp.experts.1.up_proj.weight 5 12
)"},
      {"deepseek_v3",
       R"({"model_type": "deepseek_v3", "vocab_size": 11, "hidden_size": 12, "num_attention_heads": 2,
"num_key_value_heads": 2, "max_position_embeddings": 64, "n_routed_experts": 2,
"num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "intermediate_size": 7,
"moe_intermediate_size": 5, "n_shared_experts": 3, "num_hidden_layers": 2,
"first_k_dense_replace": 1, "q_lora_rank": 9, "kv_lora_rank": 10, "qk_rope_head_dim": 4,
"qk_nope_head_dim": 6, "v_head_dim": 8})",
       R"(
lm_head.weight 11 12
model.embed_tokens.weight 11 12
model.layers.0.input_layernorm.weight 12
model.layers.0.mlp.down_proj.weight 12 7
model.layers.0.mlp.gate_proj.weight 7 12
model.layers.0.mlp.up_proj.weight 7 12
model.layers.0.post_attention_layernorm.weight 12
model.layers.0.self_attn.kv_a_layernorm.weight 10
model.layers.0.self_attn.kv_a_proj_with_mqa.weight 14 12
model.layers.0.self_attn.kv_b_proj.weight 28 10
model.layers.0.self_attn.o_proj.weight 12 16
model.layers.0.self_attn.q_a_layernorm.weight 9
model.layers.0.self_attn.q_a_proj.weight 9 12
model.layers.0.self_attn.q_b_proj.weight 20 9
model.layers.1.input_layernorm.weight 12
model.layers.1.mlp.gate.e_score_correction_bias 2
model.layers.1.mlp.gate.weight 2 12
model.layers.1.mlp.shared_experts.down_proj.weight 12 15
model.layers.1.mlp.shared_experts.gate_proj.weight 15 12
model.layers.1.mlp.shared_experts.up_proj.weight 15 12
model.layers.1.post_attention_layernorm.weight 12
model.layers.1.self_attn.kv_a_layernorm.weight 10
model.layers.1.self_attn.kv_a_proj_with_mqa.weight 14 12
model.layers.1.self_attn.kv_b_proj.weight 28 10
model.layers.1.self_attn.o_proj.weight 12 16
model.layers.1.self_attn.q_a_layernorm.weight 9
model.layers.1.self_attn.q_a_proj.weight 9 12
model.layers.1.self_attn.q_b_proj.weight 20 9
model.norm.weight 12
)",
       R"(
model.layers.1.mlp.experts.down_proj 2 12 5
model.layers.1.mlp.experts.gate_up_proj 2 10 12
)",
       R"(
model.layers.1.mlp.experts.0.down_proj.weight 12 5
model.layers.1.mlp.experts.0.gate_proj.weight 5 12
model.layers.1.mlp.experts.0.up_proj.weight 5 12
model.layers.1.mlp.experts.1.down_proj.weight 12 5
model.layers.1.mlp.experts.1.gate_proj.weight 5 12
model.layers.1.mlp.experts.1.up_proj.weight 5 12
)"},
      {"deepseek_v3 without q_lora_rank",
       R"({"model_type": "deepseek_v3", "vocab_size": 11, "hidden_size": 12, "num_attention_heads": 2,
"num_key_value_heads": 2, "num_hidden_layers": 1, "max_position_embeddings": 64,
"n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1,
"intermediate_size": 7, "moe_intermediate_size": 5, "n_shared_experts": 1,
"first_k_dense_replace": 1, "q_lora_rank": null, "kv_lora_rank": 10, "qk_rope_head_dim": 4,
"qk_nope_head_dim": 6, "v_head_dim": 8, "attention_bias": true})",
       R"(
lm_head.weight 11 12
model.embed_tokens.weight 11 12
model.layers.0.input_layernorm.weight 12
model.layers.0.mlp.down_proj.weight 12 7
model.layers.0.mlp.gate_proj.weight 7 12
model.layers.0.mlp.up_proj.weight 7 12
model.layers.0.post_attention_layernorm.weight 12
model.layers.0.self_attn.kv_a_layernorm.weight 10
model.layers.0.self_attn.kv_a_proj_with_mqa.bias 14
model.layers.0.self_attn.kv_a_proj_with_mqa.weight 14 12
model.layers.0.self_attn.kv_b_proj.weight 28 10
model.layers.0.self_attn.o_proj.bias 12
model.layers.0.self_attn.o_proj.weight 12 16
model.layers.0.self_attn.q_proj.weight 20 12
model.norm.weight 12
)",
       "", ""},
      {"llama",
       R"({"model_type": "llama", "vocab_size": 11, "hidden_size": 12, "num_attention_heads": 2,
"num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 1, "max_position_embeddings":
64, "intermediate_size": 7, "attention_bias": true, "mlp_bias": true})",
       R"(
lm_head.weight 11 12
model.embed_tokens.weight 11 12
model.layers.0.input_layernorm.weight 12
model.layers.0.mlp.down_proj.bias 12
model.layers.0.mlp.down_proj.weight 12 7
model.layers.0.mlp.gate_proj.bias 7
model.layers.0.mlp.gate_proj.weight 7 12
model.layers.0.mlp.up_proj.bias 7
model.layers.0.mlp.up_proj.weight 7 12
model.layers.0.post_attention_layernorm.weight 12
model.layers.0.self_attn.k_proj.bias 8
model.layers.0.self_attn.k_proj.weight 8 12
model.layers.0.self_attn.o_proj.bias 12
model.layers.0.self_attn.o_proj.weight 12 16
model.layers.0.self_attn.q_proj.bias 16
model.layers.0.self_attn.q_proj.weight 16 12
model.layers.0.self_attn.v_proj.bias 8
model.layers.0.self_attn.v_proj.weight 8 12
model.norm.weight 12
)",
       "", ""},
      {"qwen3, tied",
       R"({"model_type": "qwen3", "vocab_size": 11, "hidden_size": 12, "num_attention_heads": 2,
"num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 1, "max_position_embeddings":
64, "intermediate_size": 7, "tie_word_embeddings": true})",
       R"(
model.embed_tokens.weight 11 12
model.layers.0.input_layernorm.weight 12
model.layers.0.mlp.down_proj.weight 12 7
model.layers.0.mlp.gate_proj.weight 7 12
model.layers.0.mlp.up_proj.weight 7 12
model.layers.0.post_attention_layernorm.weight 12
model.layers.0.self_attn.k_norm.weight 8
model.layers.0.self_attn.k_proj.weight 8 12
model.layers.0.self_attn.o_proj.weight 12 16
model.layers.0.self_attn.q_norm.weight 8
model.layers.0.self_attn.q_proj.weight 16 12
model.layers.0.self_attn.v_proj.weight 8 12
model.norm.weight 12
)",
       "", ""},
  };
  return all;
}

}  // namespace tessera::test
