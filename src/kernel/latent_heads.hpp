// SPDX-License-Identifier: Apache-2.0
// Heads of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1): a head is
// [nope | rope], only its rope part is rotated, and all heads share one rope key. Moves them
// between token-major projections and attention's group-major layout with G = 1.
#pragma once

#include "kernel/rope.hpp"
#include "kernel/view.hpp"

namespace tessera::kernel {

struct LatentHeads {
  std::int64_t sequences = 0;   ///< B, on this rank
  std::int64_t heads = 0;       ///< H, of queries, keys and values
  std::int64_t nope_size = 0;   ///< part of q and k without position
  std::int64_t rope_size = 0;   ///< part of q and k with position, even
  std::int64_t value_size = 0;  ///< of v
  /// In a projection the pairs are (2i, 2i + 1), else (i, i + rope_size / 2). In q and k they are
  /// always the latter, as in transformers (apply_rotary_pos_emb_interleave): products of q and k
  /// see no difference.
  bool interleaved = true;

  std::int64_t key_size() const { return nope_size + rope_size; }
};

/// projected [B * S, H * (nope + rope)] f32 -> q [B, H, S, 1, nope + rope] T. The attention factor
/// is in the table, hence on the rope part alone. local.
template <class T>
void latent_query_forward(const Execution& execution, const RopeTable& table,
                          const LatentHeads& shape, Matrix<const float> projected, T* q);
/// Transposed: dq [B, H, S, 1, nope + rope] f32 -> dprojected [B * S, H * (nope + rope)] T. local.
template <class T>
void latent_query_backward(const Execution& execution, const RopeTable& table,
                           const LatentHeads& shape, const float* dq, Matrix<T> dprojected);

/// up [B * S, H * (nope + value)] f32, per head nope then value; compressed [B * S, rank + rope]
/// f32, whose last rope columns are the one rope key of all heads
///   -> k [B, H, S, nope + rope] T, v [B, H, S, value] T. local.
template <class T>
void latent_key_value_forward(const Execution& execution, const RopeTable& table,
                              const LatentHeads& shape, Matrix<const float> up,
                              Matrix<const float> compressed, T* k, T* v);
/// Transposed: dk, dv f32 -> dup T; the last rope columns of dcompressed f32 are overwritten with
/// the sum over the heads, rotated back, its other columns stay. local.
template <class T>
void latent_key_value_backward(const Execution& execution, const RopeTable& table,
                               const LatentHeads& shape, const float* dk, const float* dv,
                               Matrix<T> dup, Matrix<float> dcompressed);

namespace reference {
template <class T>
void latent_query_forward(const RopeTable& table, const LatentHeads& shape,
                          Matrix<const float> projected, T* q);
template <class T>
void latent_query_backward(const RopeTable& table, const LatentHeads& shape, const float* dq,
                           Matrix<T> dprojected);
template <class T>
void latent_key_value_forward(const RopeTable& table, const LatentHeads& shape,
                              Matrix<const float> up, Matrix<const float> compressed, T* k, T* v);
template <class T>
void latent_key_value_backward(const RopeTable& table, const LatentHeads& shape, const float* dk,
                               const float* dv, Matrix<T> dup, Matrix<float> dcompressed);
}  // namespace reference

}  // namespace tessera::kernel
