// SPDX-License-Identifier: Apache-2.0
#include <tessera/model/latent_heads.hpp>

#include "kernel/rms_norm.hpp"
#include "kernel/rows.hpp"
#include "tessera/model/projection.hpp"

namespace tessera::model {
namespace {

// Of both bottlenecks' norms, whatever rms_norm_eps says (transformers' DeepseekV3Attention).
constexpr float bottleneck_epsilon = 1e-6f;

constexpr const char* query_norm = "q_a_layernorm.weight";
constexpr const char* key_value_norm = "kv_a_layernorm.weight";

template <class T>
BottleneckSaved<T> new_bottleneck(std::int64_t num_tokens, std::int64_t rank) {
  return {kernel::new_matrix<float>("compressed", num_tokens, rank),
          kernel::new_vector<float>("compressed rstd", num_tokens),
          kernel::new_matrix<T>("compressed normed", num_tokens, rank)};
}

/// The first columns of a matrix, as a strided view.
auto first_columns(const kernel::Matrix<float>& matrix, std::int64_t count) {
  return Kokkos::subview(matrix, Kokkos::ALL, Kokkos::make_pair(std::int64_t{0}, count));
}

}  // namespace

template <class T>
LatentHeads<T>::LatentHeads(const ModelConfig& config, const kernel::RopeTable& rope,
                            const kernel::AttentionShape& shape)
    : config_(config), rope_(rope) {
  heads_.sequences = shape.sequences;
  heads_.heads = shape.query_heads;
  heads_.nope_size = config.latent.nope_size;
  heads_.rope_size = config.latent.rope_size;
  heads_.value_size = config.value_size;
  heads_.interleaved = config.rope.interleaved;
}

template <class T>
void LatentHeads<T>::normalize(const UnitView<const T>& weights, const std::string& norm,
                               BottleneckSaved<T>& saved) const {
  kernel::rms_norm_forward<T, T>(execution_, saved.compressed,
                                 weights.vector(norm, saved.compressed.extent(1)),
                                 bottleneck_epsilon, saved.normed, saved.rstd);
}

template <class T>
kernel::Matrix<float> LatentHeads<T>::normalize_backward(const UnitView<const T>& weights,
                                                         const std::string& norm,
                                                         const BottleneckSaved<T>& saved,
                                                         kernel::Matrix<float> dnormed_rank,
                                                         const UnitView<float>& gradients) const {
  const std::int64_t rank = saved.compressed.extent(1);
  const auto dcompressed =
      kernel::new_zero_matrix<float>(execution_, "dcompressed", dnormed_rank.extent(0), rank);
  kernel::rms_norm_backward<T>(execution_, dnormed_rank, saved.compressed,
                               weights.vector(norm, rank), saved.rstd, dcompressed,
                               gradients.vector(norm, rank));
  return dcompressed;
}

template <class T>
void LatentHeads<T>::forward(const UnitView<const T>& weights, kernel::Matrix<const T> normed, T* q,
                             T* k, T* v, LatentHeadsSaved<T>& saved) const {
  const std::int64_t num_tokens = normed.extent(0), rank = config_.latent.key_value_rank;
  kernel::Matrix<float> projected;
  if (config_.latent.query_rank > 0) {
    saved.query = new_bottleneck<T>(num_tokens, config_.latent.query_rank);
    saved.query.compressed = project_biased<T>(execution_, normed, weights, "self_attn.q_a_proj",
                                               config_.latent.query_rank);
    normalize(weights, query_norm, saved.query);
    projected =
        project<T>(execution_, saved.query.normed, weights, "self_attn.q_b_proj", query_width());
  } else {
    projected = project<T>(execution_, normed, weights, "self_attn.q_proj", query_width());
  }
  kernel::latent_query_forward<T>(execution_, rope_, heads_, projected, q);

  const auto compressed = project_biased<T>(execution_, normed, weights,
                                            "self_attn.kv_a_proj_with_mqa", compressed_width());
  saved.key_value = new_bottleneck<T>(num_tokens, rank);
  Kokkos::deep_copy(execution_, saved.key_value.compressed, first_columns(compressed, rank));
  normalize(weights, key_value_norm, saved.key_value);
  const auto up =
      project<T>(execution_, saved.key_value.normed, weights, "self_attn.kv_b_proj", up_width());
  kernel::latent_key_value_forward<T>(execution_, rope_, heads_, up, compressed, k, v);
}

template <class T>
void LatentHeads<T>::backward(const UnitView<const T>& weights, const LatentHeadsSaved<T>& saved,
                              kernel::Matrix<const T> normed, const float* dq, const float* dk,
                              const float* dv, const UnitView<float>& gradients,
                              kernel::Matrix<float> dnormed) const {
  const std::int64_t num_tokens = normed.extent(0), rank = config_.latent.key_value_rank;
  const auto dprojected = kernel::new_matrix<T>("dquery", num_tokens, query_width());
  kernel::latent_query_backward<T>(execution_, rope_, heads_, dq, dprojected);
  query_backward(weights, saved, normed, dprojected, gradients, dnormed);

  const auto dup = kernel::new_matrix<T>("dup", num_tokens, up_width());
  const auto dcompressed = kernel::new_matrix<float>("dcompressed", num_tokens, compressed_width());
  kernel::latent_key_value_backward<T>(execution_, rope_, heads_, dk, dv, dup, dcompressed);
  const auto dnormed_rank =
      kernel::new_zero_matrix<float>(execution_, "dnormed rank", num_tokens, rank);
  project_backward<T>(execution_, dup, saved.key_value.normed, weights, gradients,
                      "self_attn.kv_b_proj", dnormed_rank);
  const auto before =
      normalize_backward(weights, key_value_norm, saved.key_value, dnormed_rank, gradients);
  Kokkos::deep_copy(execution_, first_columns(dcompressed, rank), before);
  project_backward<T>(execution_, kernel::as_type<T>(execution_, dcompressed), normed, weights,
                      gradients, "self_attn.kv_a_proj_with_mqa", dnormed);
}

template <class T>
void LatentHeads<T>::query_backward(const UnitView<const T>& weights,
                                    const LatentHeadsSaved<T>& saved,
                                    kernel::Matrix<const T> normed,
                                    kernel::Matrix<const T> dprojected,
                                    const UnitView<float>& gradients,
                                    kernel::Matrix<float> dnormed) const {
  if (config_.latent.query_rank == 0) {
    return project_backward<T>(execution_, dprojected, normed, weights, gradients,
                               "self_attn.q_proj", dnormed);
  }
  const auto dnormed_rank = kernel::new_zero_matrix<float>(
      execution_, "dnormed rank", normed.extent(0), config_.latent.query_rank);
  project_backward<T>(execution_, dprojected, saved.query.normed, weights, gradients,
                      "self_attn.q_b_proj", dnormed_rank);
  const auto before = normalize_backward(weights, query_norm, saved.query, dnormed_rank, gradients);
  project_backward<T>(execution_, kernel::as_type<T>(execution_, before), normed, weights,
                      gradients, "self_attn.q_a_proj", dnormed);
}

template class LatentHeads<float>;
template class LatentHeads<bf16>;

}  // namespace tessera::model
