// SPDX-License-Identifier: Apache-2.0
// Attention one query at a time with f64 sums: the oracle of the blocked kernels.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel/attention.hpp"

namespace tessera::kernel::reference {
namespace {

/// One query of one head: where its rows lie and which keys it sees.
struct Query {
  std::int64_t pair, head;  ///< pair = sequence * kv_heads + kv head
  std::int64_t group_row;   ///< row of q, dq and lse
  std::int64_t out_row;     ///< row of out seen as [B * S * Hq, Dv]
  std::int64_t key_begin, key_end;
};

template <class Visit>
void for_each_query(const AttentionShape& shape, Visit visit) {
  const std::int64_t group = shape.group();
  for (std::int64_t b = 0; b < shape.sequences; ++b) {
    for (std::int64_t head = 0; head < shape.query_heads; ++head) {
      for (std::int64_t i = 0; i < shape.length; ++i) {
        const std::int64_t pair = b * shape.kv_heads + head / group;
        const std::int64_t oldest = shape.window > 0 ? i - shape.window + 1 : 0;
        visit(Query{.pair = pair,
                    .head = head,
                    .group_row = (pair * shape.length + i) * group + head % group,
                    .out_row = (b * shape.length + i) * shape.query_heads + head,
                    .key_begin = std::max<std::int64_t>(oldest, 0),
                    .key_end = i + 1});
      }
    }
  }
}

template <class TX, class TY>
double dot(const TX* x, const TY* y, std::int64_t size) {
  double sum = 0.0;
  for (std::int64_t d = 0; d < size; ++d) {
    sum += static_cast<double>(static_cast<float>(x[d])) * static_cast<float>(y[d]);
  }
  return sum;
}

void round_to(const std::vector<double>& exact, float* result) {
  for (std::size_t i = 0; i < exact.size(); ++i) result[i] = static_cast<float>(exact[i]);
}

}  // namespace

template <class T>
void attention_forward(const AttentionShape& shape, const T* q, const T* k, const T* v,
                       const float* sinks, float* out, float* lse) {
  const std::int64_t size = shape.head_size, value_size = shape.value_size;
  for_each_query(shape, [&](const Query& query) {
    std::vector<double> logits;
    for (std::int64_t j = query.key_begin; j < query.key_end; ++j) {
      const T* key = k + (query.pair * shape.length + j) * size;
      logits.push_back(shape.scale * dot(q + query.group_row * size, key, size));
    }
    double maximum = *std::max_element(logits.begin(), logits.end());
    if (sinks != nullptr) maximum = std::max<double>(maximum, sinks[query.head]);
    double total = sinks != nullptr ? std::exp(sinks[query.head] - maximum) : 0.0;
    std::vector<double> sum(value_size, 0.0);
    for (std::int64_t j = query.key_begin; j < query.key_end; ++j) {
      const double weight = std::exp(logits[j - query.key_begin] - maximum);
      const T* value = v + (query.pair * shape.length + j) * value_size;
      total += weight;
      for (std::int64_t d = 0; d < value_size; ++d) sum[d] += weight * static_cast<float>(value[d]);
    }
    for (std::int64_t d = 0; d < value_size; ++d) {
      out[query.out_row * value_size + d] = static_cast<float>(sum[d] / total);
    }
    lse[query.group_row] = static_cast<float>(maximum + std::log(total));
  });
}

template <class T>
void attention_backward(const AttentionShape& shape, const T* q, const T* k, const T* v,
                        const float* sinks, const float* out, const float* lse, const T* dout,
                        float* dq, float* dk, float* dv, float* dsinks) {
  const std::int64_t size = shape.head_size, value_size = shape.value_size;
  const std::int64_t num_positions = shape.sequences * shape.kv_heads * shape.length;
  std::vector<double> dq_sum(num_positions * shape.group() * size, 0.0);
  std::vector<double> dk_sum(num_positions * size, 0.0), dv_sum(num_positions * value_size, 0.0);
  std::vector<double> dsink_sum(shape.query_heads, 0.0);
  for_each_query(shape, [&](const Query& query) {
    const T* q_row = q + query.group_row * size;
    const T* dout_row = dout + query.out_row * value_size;
    const double product = dot(out + query.out_row * value_size, dout_row, value_size);
    const double row_lse = lse[query.group_row];
    if (sinks != nullptr) {
      dsink_sum[query.head] -= std::exp(sinks[query.head] - row_lse) * product;
    }
    for (std::int64_t j = query.key_begin; j < query.key_end; ++j) {
      const std::int64_t position = query.pair * shape.length + j;
      const double p = std::exp(shape.scale * dot(q_row, k + position * size, size) - row_lse);
      const double dp = dot(dout_row, v + position * value_size, value_size);
      const double ds = p * (dp - product) * shape.scale;
      for (std::int64_t d = 0; d < value_size; ++d) {
        dv_sum[position * value_size + d] += p * static_cast<float>(dout_row[d]);
      }
      for (std::int64_t d = 0; d < size; ++d) {
        dq_sum[query.group_row * size + d] += ds * static_cast<float>(k[position * size + d]);
        dk_sum[position * size + d] += ds * static_cast<float>(q_row[d]);
      }
    }
  });
  round_to(dq_sum, dq);
  round_to(dk_sum, dk);
  round_to(dv_sum, dv);
  if (sinks == nullptr || dsinks == nullptr) return;
  for (std::int64_t h = 0; h < shape.query_heads; ++h) {
    dsinks[h] += static_cast<float>(dsink_sum[h]);
  }
}

template void attention_forward(const AttentionShape&, const float*, const float*, const float*,
                                const float*, float*, float*);
template void attention_forward(const AttentionShape&, const bf16*, const bf16*, const bf16*,
                                const float*, float*, float*);
template void attention_backward(const AttentionShape&, const float*, const float*, const float*,
                                 const float*, const float*, const float*, const float*, float*,
                                 float*, float*, float*);
template void attention_backward(const AttentionShape&, const bf16*, const bf16*, const bf16*,
                                 const float*, const float*, const float*, const bf16*, float*,
                                 float*, float*, float*);

}  // namespace tessera::kernel::reference
