// SPDX-License-Identifier: Apache-2.0
// Causal attention with grouped query heads, an optional sliding window and optional learned sinks,
// in blocks: scores exist for one block of queries and keys at a time, never for a whole sequence.
// Algorithm: FlashAttention-2 (arXiv:2307.08691, Alg. 1 and 2); the sink is one more logit per head
// in the softmax whose column is dropped (gpt-oss).
#pragma once

#include <cstdint>

#include "kernel/view.hpp"

namespace tessera::kernel {

struct AttentionShape {
  std::int64_t sequences = 0;    ///< B, on this rank
  std::int64_t length = 0;       ///< S, positions of each sequence
  std::int64_t query_heads = 0;  ///< Hq, a multiple of kv_heads
  std::int64_t kv_heads = 0;     ///< Hkv; query head h uses kv head h / (Hq / Hkv)
  std::int64_t head_size = 0;    ///< D (of q and k)
  std::int64_t value_size = 0;   ///< Dv (of v and out); equals D except in latent attention
  float scale = 1.0f;            ///< of q . k
  std::int64_t window =
      0;  ///< key j is visible from query i iff i - window < j <= i; 0: all j <= i

  std::int64_t group() const { return query_heads / kv_heads; }
};

/// Layouts, all row-major in Memory, T in {float, bf16}. Group-major so that the query heads of a
/// group and their positions are the rows of one product:
///   q, dq      [B, Hkv, S, G, D]     k, dk  [B, Hkv, S, D]     v, dv  [B, Hkv, S, Dv]
///   out f32, dout T  [B * S, Hq * Dv]  (as the output projection wants it; out is not rounded to
///   T,
///                    because backward subtracts <dout, out> from products of about its size)
///   lse        [B, Hkv, S, G] f32    log of the sum of exponentials, the sink included
///   sinks      [Hq] f32 or null      dsinks [Hq] f32 or null, added to
/// Scores, softmax and sums are f32; probabilities enter the product with v as T. local.
template <class T>
void attention_forward(const Execution& execution, const AttentionShape& shape, const T* q,
                       const T* k, const T* v, const float* sinks, float* out, float* lse);

/// dq, dk and dv are overwritten; dsinks is added to. `out` and `lse` are those of the forward
/// pass. q, k, v, out, dout: T; dq, dk, dv: f32.
template <class T>
void attention_backward(const Execution& execution, const AttentionShape& shape, const T* q,
                        const T* k, const T* v, const float* sinks, const float* out,
                        const float* lse, const T* dout, float* dq, float* dk, float* dv,
                        float* dsinks);

namespace reference {
/// Plain loops, one query at a time, f64 inside. Host memory.
template <class T>
void attention_forward(const AttentionShape& shape, const T* q, const T* k, const T* v,
                       const float* sinks, float* out, float* lse);
template <class T>
void attention_backward(const AttentionShape& shape, const T* q, const T* k, const T* v,
                        const float* sinks, const float* out, const float* lse, const T* dout,
                        float* dq, float* dk, float* dv, float* dsinks);
}  // namespace reference

}  // namespace tessera::kernel
