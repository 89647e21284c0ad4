// SPDX-License-Identifier: Apache-2.0
// Attention backward: probabilities are computed again, block by block, from the scores and the
// forward pass's logarithms of sums (FlashAttention-2, Alg. 2). Score blocks are held transposed,
// keys as rows, so that the products that give dv and dk read them in order.
#include <cmath>
#include <type_traits>

#include "kernel/attention.hpp"
#include "kernel/attention_blocks.hpp"
#include "kernel/exponential.hpp"
#include "kernel/launch.hpp"

namespace tessera::kernel {
namespace {

template <class T>
struct BackwardScratch {
  Vector<float> scores;        ///< [pairs, keys, rows]
  Vector<float> dprobability;  ///< [pairs, keys, rows]
  Vector<T> probabilities;     ///< scores in T; for T = float the scores themselves
  Vector<T> dscores;           ///< likewise of dprobability
  Vector<T> dout;              ///< [pairs, rows, Dv], group-major

  BackwardScratch(const AttentionShape& shape, const AttentionBlocks& blocks)
      : scores(new_vector<float>("attention scores",
                                 blocks.pairs * blocks.keys * blocks.queries * shape.group())),
        dprobability(new_vector<float>("attention dprobability", scores.size())),
        dout(new_vector<T>("attention dout",
                           blocks.pairs * blocks.queries * shape.group() * shape.value_size)) {
    if constexpr (std::is_same_v<T, float>) {
      probabilities = scores;
      dscores = dprobability;
    } else {
      probabilities = new_vector<T>("attention probabilities", scores.size());
      dscores = new_vector<T>("attention dscores", scores.size());
    }
  }
};

/// What the softmax's backward needs of each row, in the layout of lse.
struct RowTerms {
  Vector<float> products;  ///< <dout, out>
  Vector<float> log2_lse;  ///< lse in units of log2(e), so that exponentials are powers of two
};

template <class T>
RowTerms row_terms(const Execution& execution, const AttentionShape& shape, const float* out,
                   const float* lse, const T* dout) {
  const std::int64_t group = shape.group(), kv_heads = shape.kv_heads, size = shape.value_size;
  const std::int64_t length = shape.length, query_heads = shape.query_heads;
  const std::int64_t num_rows = shape.sequences * length * query_heads;
  const auto products = new_vector<float>("attention output products", num_rows);
  const auto log2_lse = new_vector<float>("attention log2 lse", num_rows);
  Kokkos::parallel_for(
      "attention_row_terms", team_per_row(execution, num_rows / group, size),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const std::int64_t token = team.league_rank() / kv_heads;
        const std::int64_t kv_head = team.league_rank() % kv_heads;
        const std::int64_t pair = token / length * kv_heads + kv_head;
        for (std::int64_t g = 0; g < group; ++g) {
          const std::int64_t head = kv_head * group + g;
          const std::int64_t row = (pair * length + token % length) * group + g;
          const float* o = out + (token * query_heads + head) * size;
          const T* d = dout + (token * query_heads + head) * size;
          float product = 0.0f;
          Kokkos::parallel_reduce(
              Kokkos::TeamVectorRange(team, std::int64_t(0), size),
              [=](const std::int64_t i, float& sum) { sum += o[i] * static_cast<float>(d[i]); },
              product);
          Kokkos::single(Kokkos::PerTeam(team), [=]() {
            products(row) = product;
            log2_lse(row) = lse[row] * log2_of_e;
          });
        }
      });
  return {products, log2_lse};
}

/// dsinks[h] -= sum over queries of exp(sink - lse) * product: a sink takes probability and gives
/// nothing to the output.
void add_sink_gradient(const Execution& execution, const AttentionShape& shape, const float* sinks,
                       const float* lse, const float* products, float* dsinks) {
  const std::int64_t group = shape.group(), kv_heads = shape.kv_heads, length = shape.length;
  const std::int64_t num_tokens = shape.sequences * length;
  Kokkos::parallel_for(
      "attention_sink_gradient", team_per_row(execution, shape.query_heads, num_tokens),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const std::int64_t head = team.league_rank();
        double gradient = 0.0;
        Kokkos::parallel_reduce(
            Kokkos::TeamVectorRange(team, std::int64_t(0), num_tokens),
            [=](const std::int64_t token, double& sum) {
              const std::int64_t pair = token / length * kv_heads + head / group;
              const std::int64_t row = (pair * length + token % length) * group + head % group;
              sum += exp_nonpositive(sinks[head] - lse[row]) * products[row];
            },
            gradient);
        Kokkos::single(Kokkos::PerTeam(team),
                       [=]() { dsinks[head] -= static_cast<float>(gradient); });
      });
}

/// dout of one block of queries, from the output projection's layout to group-major rows.
template <class T>
void pack_rows(const Execution& execution, const AttentionShape& shape, Interval pairs,
               Interval queries, const T* dout, T* packed) {
  const std::int64_t group = shape.group(), kv_heads = shape.kv_heads, size = shape.value_size;
  const std::int64_t length = shape.length, width = shape.query_heads * size;
  const std::int64_t position_size = group * size;
  Kokkos::parallel_for(
      "attention_pack_dout", team_per_row(execution, pairs.count * queries.count, position_size),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const std::int64_t pair = pairs.first + team.league_rank() / queries.count;
        const std::int64_t query = queries.first + team.league_rank() % queries.count;
        const std::int64_t token = pair / kv_heads * length + query;
        const T* source = dout + token * width + pair % kv_heads * position_size;
        T* destination = packed + team.league_rank() * position_size;
        Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), position_size),
                             [=](const std::int64_t d) { destination[d] = source[d]; });
      });
}

/// Scores become probabilities and dprobability becomes the gradient of q . k, with the scale of
/// the scores already multiplied in; zero where the key is not visible.
template <class T>
void softmax_backward_step(const Execution& execution, const AttentionShape& shape, Interval pairs,
                           Interval queries, Interval keys, const RowTerms& terms,
                           const BackwardScratch<T>& scratch) {
  const float* scores = scratch.scores.data();
  const float* dprobabilities = scratch.dprobability.data();
  T* probabilities = scratch.probabilities.data();
  T* dscores = scratch.dscores.data();
  const float* products = terms.products.data();
  const float* log2_lse = terms.log2_lse.data();
  const float scale = shape.scale, log2_scale = shape.scale * log2_of_e;
  const std::int64_t window = shape.window > 0 ? shape.window : shape.length;
  const std::int64_t group = shape.group(), length = shape.length;
  const std::int64_t rows = queries.count * group;
  Kokkos::parallel_for(
      "attention_softmax_backward", team_per_row(execution, pairs.count * keys.count, rows),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const std::int64_t pair = pairs.first + team.league_rank() / keys.count;
        const std::int64_t key = keys.first + team.league_rank() % keys.count;
        const std::int64_t first = key - queries.first;
        const VisibleSpan visible(first * group, (first + window) * group, rows);
        const std::int64_t offset = team.league_rank() * rows;
        const float* score = scores + offset;
        const float* dprobability = dprobabilities + offset;
        T* probability = probabilities + offset;
        T* dscore = dscores + offset;
        const float* row_lse = log2_lse + (pair * length + queries.first) * group;
        const float* product = products + (pair * length + queries.first) * group;
        Kokkos::parallel_for(
            Kokkos::TeamVectorRange(team, visible.vector_begin, visible.vector_end),
            [=](const std::int64_t r) {
              const float p = exp2_nonpositive(score[r] * log2_scale - row_lse[r]);
              dscore[r] = round_to<T>(p * (dprobability[r] - product[r]) * scale);
              probability[r] = round_to<T>(p);
            });
        team.team_barrier();
        const auto clear = [=](const std::int64_t r) {
          probability[r] = T(0.0f);
          dscore[r] = T(0.0f);
        };
        Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), visible.begin), clear);
        Kokkos::parallel_for(Kokkos::TeamVectorRange(team, visible.end, rows), clear);
      });
}

}  // namespace

template <class T>
void attention_backward(const Execution& execution, const AttentionShape& shape, const T* q,
                        const T* k, const T* v, const float* sinks, const float* out,
                        const float* lse, const T* dout, float* dq, float* dk, float* dv,
                        float* dsinks) {
  expect_valid(shape);
  const std::int64_t num_pairs = shape.sequences * shape.kv_heads;
  if (num_pairs == 0 || shape.length == 0) return;
  const AttentionBlocks blocks = backward_blocks(shape, sizeof(T));
  const BackwardScratch<T> scratch(shape, blocks);
  const std::int64_t group = shape.group(), d = shape.head_size, size = shape.value_size;
  const std::int64_t q_stride = shape.length * group * d;
  const std::int64_t k_stride = shape.length * d, v_stride = shape.length * size;

  const RowTerms terms = row_terms(execution, shape, out, lse, dout);
  if (sinks != nullptr && dsinks != nullptr) {
    add_sink_gradient(execution, shape, sinks, lse, terms.products.data(), dsinks);
  }
  Kokkos::deep_copy(execution, Vector<float>(dk, num_pairs * k_stride), 0.0f);
  Kokkos::deep_copy(execution, Vector<float>(dv, num_pairs * v_stride), 0.0f);

  for (std::int64_t pair = 0; pair < num_pairs; pair += blocks.pairs) {
    const Interval pairs = interval(pair, blocks.pairs, num_pairs);
    for (std::int64_t query = 0; query < shape.length; query += blocks.queries) {
      const Interval queries = interval(query, blocks.queries, shape.length);
      const std::int64_t rows = queries.count * group;
      pack_rows(execution, shape, pairs, queries, dout, scratch.dout.data());
      const T* packed = scratch.dout.data();
      const auto dout_block = row_block(packed, size, 0, rows);
      const auto q_block = row_block(q + pair * q_stride, d, query * group, rows);
      const auto dq_block = row_block(dq + pair * q_stride, d, query * group, rows);
      const Interval visible = visible_keys(shape, queries);
      for (std::int64_t key = visible.first; key < visible.end(); key += blocks.keys) {
        const Interval keys = interval(key, blocks.keys, visible.end());
        const std::int64_t stride = keys.count * rows;
        const auto k_block = row_block(k + pair * k_stride, d, key, keys.count);
        const auto v_block = row_block(v + pair * v_stride, size, key, keys.count);
        const T* probabilities = scratch.probabilities.data();
        const T* dscores = scratch.dscores.data();
        const auto p_block = row_block(probabilities, rows, 0, keys.count);
        const auto ds_block = row_block(dscores, rows, 0, keys.count);
        gemm_batched(execution, pairs.count, k_block, k_stride, q_block.t(), q_stride,
                     row_block(scratch.scores.data(), rows, 0, keys.count), stride);
        gemm_batched(execution, pairs.count, v_block, v_stride, dout_block.t(), rows * size,
                     row_block(scratch.dprobability.data(), rows, 0, keys.count), stride);
        softmax_backward_step(execution, shape, pairs, queries, keys, terms, scratch);
        gemm_batched(execution, pairs.count, p_block, stride, dout_block, rows * size,
                     row_block(dv + pair * v_stride, size, key, keys.count), v_stride,
                     Into::accumulate);
        gemm_batched(execution, pairs.count, ds_block, stride, q_block, q_stride,
                     row_block(dk + pair * k_stride, d, key, keys.count), k_stride,
                     Into::accumulate);
        gemm_batched(execution, pairs.count, ds_block.t(), stride, k_block, k_stride, dq_block,
                     q_stride, key == visible.first ? Into::overwrite : Into::accumulate);
      }
    }
  }
}

template void attention_backward(const Execution&, const AttentionShape&, const float*,
                                 const float*, const float*, const float*, const float*,
                                 const float*, const float*, float*, float*, float*, float*);
template void attention_backward(const Execution&, const AttentionShape&, const bf16*, const bf16*,
                                 const bf16*, const float*, const float*, const float*, const bf16*,
                                 float*, float*, float*, float*);

}  // namespace tessera::kernel
