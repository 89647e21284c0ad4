// SPDX-License-Identifier: Apache-2.0
// Attention forward: per block of queries one pass over its visible keys with an online softmax,
// which rescales what it has summed whenever a larger score appears (FlashAttention-2, Alg. 1).
#include <cmath>
#include <type_traits>

#include "kernel/attention.hpp"
#include "kernel/attention_blocks.hpp"
#include "kernel/exponential.hpp"

namespace tessera::kernel {
namespace {

/// What one block of queries carries from key block to key block; row r = (pair, position, head of
/// the group).
template <class T>
struct ForwardScratch {
  Vector<float> scores;     ///< [pairs, rows, keys]
  Vector<T> probabilities;  ///< the same in T; for T = float the scores themselves
  Vector<float> sums;       ///< [pairs, rows, Dv] sum of probability times value
  Vector<float> maximum;    ///< [pairs, rows] largest logit so far
  Vector<float> total;      ///< [pairs, rows] sum of exp(logit - maximum)

  ForwardScratch(const AttentionShape& shape, const AttentionBlocks& blocks)
      : scores(uninitialized("attention scores"),
               blocks.pairs * blocks.queries * shape.group() * blocks.keys),
        sums(uninitialized("attention sums"),
             blocks.pairs * blocks.queries * shape.group() * shape.value_size),
        maximum(uninitialized("attention maximum"), blocks.pairs * blocks.queries * shape.group()),
        total(uninitialized("attention total"), blocks.pairs * blocks.queries * shape.group()) {
    if constexpr (std::is_same_v<T, float>) {
      probabilities = scores;
    } else {
      probabilities = Vector<T>(uninitialized("attention probabilities"), scores.size());
    }
  }
};

/// Scores of one key block become probabilities relative to the maximum so far; maximum, total and
/// the sums of earlier blocks follow. Before the first block the sink, if any, is the only logit
/// seen.
template <class T>
void softmax_step(const Execution& execution, const AttentionShape& shape, Interval pairs,
                  Interval queries, Interval keys, bool is_first, const float* sinks,
                  const ForwardScratch<T>& scratch) {
  const float* scores = scratch.scores.data();
  T* probabilities = scratch.probabilities.data();
  float* sums = scratch.sums.data();
  float* maximum = scratch.maximum.data();
  float* total = scratch.total.data();
  const float scale = shape.scale;
  const std::int64_t window = shape.window > 0 ? shape.window : shape.length;
  const std::int64_t group = shape.group(), kv_heads = shape.kv_heads, size = shape.value_size;
  const std::int64_t rows = queries.count * group;
  Kokkos::parallel_for(
      "attention_softmax", Team(execution, static_cast<int>(pairs.count * rows), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const std::int64_t row = team.league_rank();
        const std::int64_t pair = pairs.first + row / rows;
        const std::int64_t query = queries.first + row % rows / group;
        const std::int64_t head = pair % kv_heads * group + row % group;
        const std::int64_t oldest = query - window + 1 - keys.first;
        const std::int64_t newest_end = query + 1 - keys.first;
        const std::int64_t begin = oldest < 0 ? 0 : oldest > keys.count ? keys.count : oldest;
        const std::int64_t end = newest_end < begin        ? begin
                                 : newest_end > keys.count ? keys.count
                                                           : newest_end;
        const float* score = scores + row * keys.count;
        T* probability = probabilities + row * keys.count;

        const bool has_sink = sinks != nullptr && sinks[head] > -INFINITY;
        const float old_maximum = !is_first ? maximum[row] : has_sink ? sinks[head] : -INFINITY;
        const float old_total = !is_first ? total[row] : has_sink ? 1.0f : 0.0f;
        std::int32_t largest;
        Kokkos::parallel_reduce(
            Kokkos::TeamVectorRange(team, begin, end),
            [=](const std::int64_t j, std::int32_t& running) {
              const std::int32_t ordered = ordered_bits(score[j]);
              running = ordered > running ? ordered : running;
            },
            Kokkos::Max<std::int32_t>(largest));
        const float block_maximum = end > begin ? from_ordered_bits(largest) * scale : -INFINITY;
        const float new_maximum = block_maximum > old_maximum ? block_maximum : old_maximum;

        float block_total = 0.0f;
        Kokkos::parallel_reduce(
            Kokkos::TeamVectorRange(team, begin, end),
            [=](const std::int64_t j, float& running) {
              const float p = exp_nonpositive(score[j] * scale - new_maximum);
              probability[j] = T(p);
              running += p;
            },
            block_total);
        Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), begin),
                             [=](const std::int64_t j) { probability[j] = T(0.0f); });
        Kokkos::parallel_for(Kokkos::TeamVectorRange(team, end, keys.count),
                             [=](const std::int64_t j) { probability[j] = T(0.0f); });

        // Nothing seen before: exp(-inf - x) is 0, and -inf - -inf would be NaN.
        const float rescale = old_total > 0.0f ? std::exp(old_maximum - new_maximum) : 0.0f;
        if (!is_first && rescale != 1.0f) {
          float* sum = sums + row * size;
          Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), size),
                               [=](const std::int64_t d) { sum[d] *= rescale; });
        }
        Kokkos::single(Kokkos::PerTeam(team), [=]() {
          maximum[row] = new_maximum;
          total[row] = old_total * rescale + block_total;
        });
      });
}

/// Sums divided by their totals go to `out`, in the layout of the output projection.
template <class T>
void finish_rows(const Execution& execution, const AttentionShape& shape, Interval pairs,
                 Interval queries, const ForwardScratch<T>& scratch, float* out, float* lse) {
  const float* sums = scratch.sums.data();
  const float* maximum = scratch.maximum.data();
  const float* total = scratch.total.data();
  const std::int64_t group = shape.group(), kv_heads = shape.kv_heads, size = shape.value_size;
  const std::int64_t length = shape.length, query_heads = shape.query_heads;
  const std::int64_t rows = queries.count * group;
  Kokkos::parallel_for(
      "attention_finish", Team(execution, static_cast<int>(pairs.count * rows), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const std::int64_t row = team.league_rank();
        const std::int64_t pair = pairs.first + row / rows;
        const std::int64_t query = queries.first + row % rows / group;
        const std::int64_t head = pair % kv_heads * group + row % group;
        const std::int64_t token = pair / kv_heads * length + query;
        const float inverse = 1.0f / total[row];
        const float* sum = sums + row * size;
        float* result = out + (token * query_heads + head) * size;
        Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), size),
                             [=](const std::int64_t d) { result[d] = sum[d] * inverse; });
        Kokkos::single(Kokkos::PerTeam(team), [=]() {
          lse[(pair * length + query) * group + row % group] = maximum[row] + std::log(total[row]);
        });
      });
}

}  // namespace

template <class T>
void attention_forward(const Execution& execution, const AttentionShape& shape, const T* q,
                       const T* k, const T* v, const float* sinks, float* out, float* lse) {
  expect_valid(shape);
  const std::int64_t num_pairs = shape.sequences * shape.kv_heads;
  if (num_pairs == 0 || shape.length == 0) return;
  const std::int64_t score_bytes = sizeof(float) + (std::is_same_v<T, float> ? 0 : sizeof(T));
  const std::int64_t row_bytes = shape.value_size * static_cast<std::int64_t>(sizeof(float));
  const AttentionBlocks blocks = attention_blocks(shape, score_bytes, row_bytes);
  const ForwardScratch<T> scratch(shape, blocks);
  const std::int64_t group = shape.group(), d = shape.head_size, dv = shape.value_size;
  const std::int64_t q_stride = shape.length * group * d;
  const std::int64_t k_stride = shape.length * d, v_stride = shape.length * dv;

  for (std::int64_t pair = 0; pair < num_pairs; pair += blocks.pairs) {
    const Interval pairs = interval(pair, blocks.pairs, num_pairs);
    for (std::int64_t query = 0; query < shape.length; query += blocks.queries) {
      const Interval queries = interval(query, blocks.queries, shape.length);
      const std::int64_t rows = queries.count * group;
      const auto q_block = row_block(q + pair * q_stride, d, query * group, rows);
      const Interval visible = visible_keys(shape, queries);
      for (std::int64_t key = visible.first; key < visible.end(); key += blocks.keys) {
        const Interval keys = interval(key, blocks.keys, visible.end());
        const bool is_first = key == visible.first;
        const auto k_block = row_block(k + pair * k_stride, d, key, keys.count);
        const auto v_block = row_block(v + pair * v_stride, dv, key, keys.count);
        gemm_batched(execution, pairs.count, q_block, q_stride, k_block.t(), k_stride,
                     row_block(scratch.scores.data(), keys.count, 0, rows), rows * keys.count);
        softmax_step(execution, shape, pairs, queries, keys, is_first, sinks, scratch);
        const T* probabilities = scratch.probabilities.data();
        gemm_batched(execution, pairs.count, row_block(probabilities, keys.count, 0, rows),
                     rows * keys.count, v_block, v_stride,
                     row_block(scratch.sums.data(), dv, 0, rows), rows * dv,
                     is_first ? Into::overwrite : Into::accumulate);
      }
      finish_rows(execution, shape, pairs, queries, scratch, out, lse);
    }
  }
}

template void attention_forward(const Execution&, const AttentionShape&, const float*, const float*,
                                const float*, const float*, float*, float*);
template void attention_forward(const Execution&, const AttentionShape&, const bf16*, const bf16*,
                                const bf16*, const float*, float*, float*);

}  // namespace tessera::kernel
