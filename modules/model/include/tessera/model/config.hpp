// SPDX-License-Identifier: Apache-2.0
// A model's configuration as Tessera understands it, parsed from config.json in the spellings of
// transformers 4 and 5.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera::model {

enum class RopeVariant { plain, yarn };

/// Rotary embedding parameters, from `rope_parameters` (transformers 5) or `rope_theta` +
/// `rope_scaling`.
struct RopeConfig {
  RopeVariant variant = RopeVariant::plain;
  double theta = 150000.0;
  double factor = 32.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::int64_t original_max_position = 4096;
  bool truncate = false;
  double attention_factor = 0.0;  ///< 0: computed
  double mscale = 0.0;            ///< 0: absent
  double mscale_all_dim = 0.0;    ///< 0: absent
};

/// All fields of a gpt-oss model. Absent keys take the default of transformers' GptOssConfig.
struct ModelConfig {
  std::string family;  ///< model_type: "gpt_oss"
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_size = 0;
  std::int64_t intermediate_size = 0;  ///< of one expert
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  double rms_norm_epsilon = 1e-5;
  bool tied_embeddings = false;
  bool attention_bias = true;
  double swiglu_limit = 7.0;
  double swiglu_alpha = 1.702;
  double router_aux_loss_coef = 0.0;  ///< as the file says; used only when the user asks for it
  bool output_router_logits = false;
  double initializer_range = 0.02;
  std::int64_t max_position = 131072;
  /// pad_token_id, -1 = none. torch's Embedding(padding_idx): the row is looked up as any other but
  /// gets no gradient from being looked up (a tied row still gets the one of the output
  /// projection).
  std::int64_t padding_id = -1;
  std::vector<std::int64_t>
      layer_window;  ///< [num_layers] sliding window in positions, 0 = full attention
  RopeConfig rope;
};

/// Throws Error::config naming the key: not JSON, a missing or ill-typed key, a value out of range,
/// two spellings that disagree, a model_type or a key that changes the mathematics and is not
/// implemented. `origin` names the file in messages. local.
ModelConfig parse_config(const std::string& json_text, const std::string& origin);

/// Trainable numbers in the model, tied embeddings once. local.
std::int64_t num_parameters(const ModelConfig& config);

/// One line: "gpt_oss, 24 layers, hidden 2880, 32 experts (top 4), 20.91 B parameters". local.
std::string describe(const ModelConfig& config);

}  // namespace tessera::model
