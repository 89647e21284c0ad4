// SPDX-License-Identifier: Apache-2.0
// Attention forward: per block of queries one pass over its visible keys with an online softmax,
// which rescales what it has summed whenever a larger score appears (FlashAttention-2, Alg. 1).
#include <cmath>
#include <type_traits>

#include "kernel/attention.hpp"
#include "kernel/attention_blocks.hpp"
#include "kernel/exponential.hpp"
#include "kernel/launch.hpp"

namespace tessera::kernel {
namespace {

/// Where a row's online softmax stands; logits in units of log2(e), so that exponentials are powers
/// of two.
struct RowState {
  float maximum;
  float total;  ///< sum of 2^(logit - maximum)
};

/// Before the first block the sink, if any, is the only logit seen.
KOKKOS_INLINE_FUNCTION RowState initial_state(const float* sinks, std::int64_t head) {
  const bool has_sink = sinks != nullptr && sinks[head] > -INFINITY;
  return has_sink ? RowState{sinks[head] * log2_of_e, 1.0f} : RowState{-INFINITY, 0.0f};
}

/// What one block of queries carries from key block to key block; row r = (pair, position, head of
/// the group).
template <class T>
struct ForwardScratch {
  Vector<float> scores;     ///< [pairs, rows, keys]
  Vector<T> probabilities;  ///< the same in T; for T = float the scores themselves
  Vector<float> sums;       ///< [pairs, rows, Dv] sum of probability times value
  Vector<RowState> states;  ///< [pairs, rows]

  ForwardScratch(const AttentionShape& shape, const AttentionBlocks& blocks) {
    const std::int64_t rows = blocks.pairs * blocks.queries * shape.group();
    scores = new_vector<float>("attention scores", rows * blocks.keys);
    sums = new_vector<float>("attention sums", rows * shape.value_size);
    states = new_vector<RowState>("attention states", rows);
    if constexpr (std::is_same_v<T, float>) {
      probabilities = scores;
    } else {
      probabilities = new_vector<T>("attention probabilities", scores.size());
    }
  }
};

/// Scores of one row of a block become probabilities relative to the maximum so far, zero where the
/// key is not visible.
template <class T>
KOKKOS_INLINE_FUNCTION RowState softmax_row(const Team::member_type& team, const RowState& old,
                                            const VisibleSpan& visible, std::int64_t count,
                                            float scale, float* score, T* probability) {
  const auto hide = [=](const std::int64_t j) { score[j] = -INFINITY; };
  Kokkos::parallel_for(Kokkos::TeamVectorRange(team, visible.vector_begin, visible.begin), hide);
  Kokkos::parallel_for(Kokkos::TeamVectorRange(team, visible.end, visible.vector_end), hide);
  team.team_barrier();
  std::int32_t largest;
  Kokkos::parallel_reduce(
      Kokkos::TeamVectorRange(team, visible.vector_begin, visible.vector_end),
      [=](const std::int64_t j, std::int32_t& running) {
        const std::int32_t ordered = ordered_bits(score[j]);
        running = ordered > running ? ordered : running;
      },
      Kokkos::Max<std::int32_t>(largest));
  const bool is_empty = visible.begin == visible.end;
  const float block_maximum = is_empty ? -INFINITY : from_ordered_bits(largest) * scale;
  const float maximum = block_maximum > old.maximum ? block_maximum : old.maximum;
  float total = 0.0f;
  Kokkos::parallel_reduce(
      Kokkos::TeamVectorRange(team, visible.vector_begin, visible.vector_end),
      [=](const std::int64_t j, float& running) {
        const float p = exp2_nonpositive(score[j] * scale - maximum);
        probability[j] = round_to<T>(p);
        running += p;
      },
      total);
  const auto clear = [=](const std::int64_t j) { probability[j] = T(0.0f); };
  Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), visible.vector_begin), clear);
  Kokkos::parallel_for(Kokkos::TeamVectorRange(team, visible.vector_end, count), clear);
  return {maximum, total};
}

/// Scores of one key block become probabilities; maximum, total and the sums of earlier blocks
/// follow.
template <class T>
void softmax_step(const Execution& execution, const AttentionShape& shape, Interval pairs,
                  Interval queries, Interval keys, bool is_first, const float* sinks,
                  const ForwardScratch<T>& scratch) {
  float* scores = scratch.scores.data();
  T* probabilities = scratch.probabilities.data();
  float* sums = scratch.sums.data();
  RowState* states = scratch.states.data();
  const float scale = shape.scale * log2_of_e;
  const std::int64_t window = shape.window > 0 ? shape.window : shape.length;
  const std::int64_t group = shape.group(), kv_heads = shape.kv_heads, size = shape.value_size;
  Kokkos::parallel_for(
      "attention_softmax", team_per_row(execution, pairs.count * queries.count, keys.count),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const std::int64_t pair = pairs.first + team.league_rank() / queries.count;
        const std::int64_t query = queries.first + team.league_rank() % queries.count;
        const std::int64_t after = query + 1 - keys.first;
        const VisibleSpan visible(after - window, after, keys.count);
        for (std::int64_t g = 0; g < group; ++g) {
          const std::int64_t row = team.league_rank() * group + g;
          const RowState old =
              is_first ? initial_state(sinks, pair % kv_heads * group + g) : states[row];
          const RowState block =
              softmax_row(team, old, visible, keys.count, scale, scores + row * keys.count,
                          probabilities + row * keys.count);
          // Nothing seen before: 2^(-inf - x) is 0, and -inf - -inf would be NaN.
          const float rescale =
              old.total > 0.0f ? exp2_nonpositive(old.maximum - block.maximum) : 0.0f;
          if (!is_first && rescale != 1.0f) {
            float* sum = sums + row * size;
            Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), size),
                                 [=](const std::int64_t d) { sum[d] *= rescale; });
          }
          Kokkos::single(Kokkos::PerTeam(team), [=]() {
            states[row] = {block.maximum, old.total * rescale + block.total};
          });
        }
      });
}

/// Sums divided by their totals go to `out`, in the layout of the output projection.
template <class T>
void finish_rows(const Execution& execution, const AttentionShape& shape, Interval pairs,
                 Interval queries, const ForwardScratch<T>& scratch, float* out, float* lse) {
  const float* sums = scratch.sums.data();
  const RowState* states = scratch.states.data();
  const std::int64_t group = shape.group(), kv_heads = shape.kv_heads, size = shape.value_size;
  const std::int64_t length = shape.length, query_heads = shape.query_heads;
  Kokkos::parallel_for(
      "attention_finish", team_per_row(execution, pairs.count * queries.count, size),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const std::int64_t pair = pairs.first + team.league_rank() / queries.count;
        const std::int64_t query = queries.first + team.league_rank() % queries.count;
        const std::int64_t head = pair % kv_heads * group;
        float* result = out + ((pair / kv_heads * length + query) * query_heads + head) * size;
        for (std::int64_t g = 0; g < group; ++g) {
          const std::int64_t row = team.league_rank() * group + g;
          const RowState state = states[row];
          const float inverse = 1.0f / state.total;
          Kokkos::parallel_for(
              Kokkos::TeamVectorRange(team, std::int64_t(0), size),
              [=](const std::int64_t d) { result[g * size + d] = sums[row * size + d] * inverse; });
          Kokkos::single(Kokkos::PerTeam(team), [=]() {
            constexpr double ln2 = 0.693147180559945309;
            lse[(pair * length + query) * group + g] =
                static_cast<float>(state.maximum * ln2 + std::log(state.total));
          });
        }
      });
}

}  // namespace

template <class T>
void attention_forward(const Execution& execution, const AttentionShape& shape, const T* q,
                       const T* k, const T* v, const float* sinks, float* out, float* lse) {
  expect_valid(shape);
  const std::int64_t num_pairs = shape.sequences * shape.kv_heads;
  if (num_pairs == 0 || shape.length == 0) return;
  const AttentionBlocks blocks = forward_blocks(shape, sizeof(T));
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
