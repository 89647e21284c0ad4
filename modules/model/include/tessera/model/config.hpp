// SPDX-License-Identifier: Apache-2.0
// What a model is, as its config.json says: dimensions, the mathematics of its family and rotary
// embedding. Defaults of absent keys are those of transformers' configuration classes, kept in
// share/families.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/activation.hpp"
#include "tessera/moe/router_options.hpp"

namespace tessera::model {

enum class RopeVariant { plain, linear, llama3, yarn };

struct RopeConfig {
  RopeVariant variant = RopeVariant::plain;
  double theta = 10000.0;
  double factor = 1.0;  ///< linear, llama3, yarn
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::int64_t original_max_position = 4096;
  bool truncate = true;
  double attention_factor = 0.0;       ///< 0: computed
  double mscale = 0.0;                 ///< 0: absent
  double mscale_all_dim = 0.0;         ///< 0: absent
  double low_frequency_factor = 1.0;   ///< llama3
  double high_frequency_factor = 4.0;  ///< llama3
  bool interleaved = false;            ///< pairs (2i, 2i + 1) instead of (i, i + D/2) (DeepSeek)
};

struct RouterConfig {
  std::string name;                  ///< of its parameters within a layer: "mlp.router", "mlp.gate"
  moe::RouterOptions options;        ///< top_k among them
  bool has_correction_bias = false;  ///< "<name>.e_score_correction_bias", a buffer
};

enum class QueryKeyNorm { none, head, projection };

/// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).
struct LatentAttention {
  std::int64_t query_rank = 0;      ///< q_lora_rank; 0: queries are projected directly
  std::int64_t key_value_rank = 0;  ///< kv_lora_rank; 0: the model has grouped attention instead
  std::int64_t rope_size = 0;       ///< qk_rope_head_dim
  std::int64_t nope_size = 0;       ///< qk_nope_head_dim
};

struct ModelConfig {
  std::string family;  ///< model_type: "gpt_oss", "mixtral", ...
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;  ///< equals num_heads in latent attention
  std::int64_t head_size = 0;   ///< of queries and keys; rope_size + nope_size in latent attention
  std::int64_t value_size = 0;  ///< of values; equals head_size except in latent attention
  LatentAttention latent;
  QueryKeyNorm query_key_norm = QueryKeyNorm::none;
  double clip_qkv = 0.0;               ///< queries, keys and values clamped to +-this; 0: not
  double attention_scale = 0.0;        ///< of q . k, YaRN's mscale of latent attention included
  std::int64_t num_experts = 0;        ///< 0: a dense model
  std::int64_t intermediate_size = 0;  ///< of one expert
  std::int64_t dense_intermediate_size = 0;   ///< of a layer without experts
  std::int64_t shared_intermediate_size = 0;  ///< of the shared experts together; 0: none
  RouterConfig router;
  kernel::Activation activation = kernel::Activation::swiglu;
  double swiglu_limit = 7.0;
  double swiglu_alpha = 1.702;
  double rms_norm_epsilon = 1e-5;
  bool tied_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  double router_aux_loss_coef = 0.0;  ///< as the file says; used only when the user asks for it
  bool has_aux_loss = true;  ///< the family defines the load-balancing loss (DeepSeek does not)
  bool output_router_logits = false;
  double initializer_range = 0.02;
  std::int64_t max_position = 131072;
  /// pad_token_id, -1 = none. torch's Embedding(padding_idx): the row is looked up as any other but
  /// gets no gradient from being looked up (a tied row still gets the one of the output
  /// projection).
  std::int64_t padding_id = -1;
  /// Rows of the embedding and of the output matrix that are gathered at a time; 0: all. Not of the
  /// file: chosen from their size, or by the variable TESSERA_VOCABULARY_CHUNK.
  std::int64_t vocabulary_chunk = 0;
  std::vector<std::int64_t>
      layer_window;  ///< [num_layers] sliding window in positions, 0 = full attention
  std::vector<bool> layer_has_experts;  ///< [num_layers]
  RopeConfig rope;

  bool is_latent() const { return latent.key_value_rank > 0; }
};

/// Parses config.json of any family in share/families, in the spelling of transformers 4
/// (`rope_theta` + `rope_scaling`, `torch_dtype`, `num_experts`) or 5 (`rope_parameters`, `dtype`,
/// `num_local_experts`), or as the original gpt-oss release has it (no model_type). Throws
/// Error::config naming the key for a value that is missing, out of range or not implemented, and
/// for any unknown key that could change the mathematics. `origin` names the file in messages.
/// local.
ModelConfig parse_config(const std::string& json_text, const std::string& origin);

/// config.json as transformers 5 reads it, from any spelling that parse_config takes: what export
/// writes. Verbatim unless something has to change. `mxfp4`: whether the exported experts are
/// (quantization_config is added, kept or removed). local.
std::string hugging_face_config(const std::string& json_text, bool mxfp4);

/// Parameters of the whole model. local.
std::int64_t num_parameters(const ModelConfig& config);

/// One line for logs: family, layers, hidden size, experts, parameters. local.
std::string describe(const ModelConfig& config);

}  // namespace tessera::model
