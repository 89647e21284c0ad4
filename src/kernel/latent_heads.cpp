// SPDX-License-Identifier: Apache-2.0
// Heads of latent attention with Kokkos: one team per token, heads over its threads, dimensions
// over their lanes.
#include "kernel/latent_heads.hpp"

#include "base/contract.hpp"

namespace tessera::kernel {

namespace {

constexpr int num_lanes = 32;

/// Where head h of token (b, s) begins in [B, H, S, size], in heads.
struct HeadIndex {
  std::int64_t length;
  std::int64_t heads;

  KOKKOS_INLINE_FUNCTION std::int64_t operator()(std::int64_t token, std::int64_t head) const {
    return (token / length * heads + head) * length + token % length;
  }
};

/// Columns of pair i in the rope part of a projection.
struct Pair {
  std::int64_t stride;    ///< from pair to pair
  std::int64_t distance;  ///< from the first to the second of a pair
};

Pair pair_of(const LatentHeads& shape) {
  return shape.interleaved ? Pair{2, 1} : Pair{1, shape.rope_size / 2};
}

HeadIndex make_index(const RopeTable& table, const LatentHeads& shape, std::int64_t tokens) {
  TESSERA_EXPECT(shape.sequences > 0 && tokens % shape.sequences == 0 && shape.rope_size % 2 == 0);
  const std::int64_t length = tokens / shape.sequences;
  TESSERA_EXPECT(static_cast<std::int64_t>(table.cosine.extent(0)) >= length &&
                 static_cast<std::int64_t>(table.cosine.extent(1)) == shape.rope_size / 2);
  return {length, shape.heads};
}

template <class T>
void expect_columns(const Matrix<T>& matrix, std::int64_t rows, std::int64_t columns) {
  TESSERA_EXPECT(static_cast<std::int64_t>(matrix.extent(0)) == rows &&
                 static_cast<std::int64_t>(matrix.extent(1)) == columns);
}

Team team_per_token(const Execution& execution, std::int64_t tokens) {
  return Team(execution, static_cast<int>(tokens), Kokkos::AUTO, num_lanes);
}

}  // namespace

template <class T>
void latent_query_forward(const Execution& execution, const RopeTable& table,
                          const LatentHeads& shape, Matrix<const float> projected, T* q) {
  const std::int64_t tokens = projected.extent(0);
  if (tokens == 0) return;
  const HeadIndex index = make_index(table, shape, tokens);
  expect_columns(projected, tokens, shape.heads * shape.key_size());
  const Matrix<const float> cosine = table.cosine, sine = table.sine;
  const Pair pair = pair_of(shape);
  const std::int64_t nope = shape.nope_size, half = shape.rope_size / 2, size = shape.key_size();
  Kokkos::parallel_for(
      "tessera::latent_query_forward", team_per_token(execution, tokens),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t token = member.league_rank();
        const std::int64_t s = token % index.length;
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, index.heads), [&](const std::int64_t head) {
              T* out = q + index(token, head) * size;
              const float* in = &projected(token, head * size);
              Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, nope),
                                   [&](const std::int64_t i) { out[i] = static_cast<T>(in[i]); });
              Kokkos::parallel_for(
                  Kokkos::ThreadVectorRange(member, half), [&](const std::int64_t i) {
                    const float x = in[nope + i * pair.stride];
                    const float y = in[nope + i * pair.stride + pair.distance];
                    out[nope + i] = static_cast<T>(x * cosine(s, i) - y * sine(s, i));
                    out[nope + half + i] = static_cast<T>(y * cosine(s, i) + x * sine(s, i));
                  });
            });
      });
}

template <class T>
void latent_query_backward(const Execution& execution, const RopeTable& table,
                           const LatentHeads& shape, const float* dq, Matrix<T> dprojected) {
  const std::int64_t tokens = dprojected.extent(0);
  if (tokens == 0) return;
  const HeadIndex index = make_index(table, shape, tokens);
  expect_columns(dprojected, tokens, shape.heads * shape.key_size());
  const Matrix<const float> cosine = table.cosine, sine = table.sine;
  const Pair pair = pair_of(shape);
  const std::int64_t nope = shape.nope_size, half = shape.rope_size / 2, size = shape.key_size();
  Kokkos::parallel_for(
      "tessera::latent_query_backward", team_per_token(execution, tokens),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t token = member.league_rank();
        const std::int64_t s = token % index.length;
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, index.heads), [&](const std::int64_t head) {
              T* out = &dprojected(token, head * size);
              const float* in = dq + index(token, head) * size;
              Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, nope),
                                   [&](const std::int64_t i) { out[i] = static_cast<T>(in[i]); });
              Kokkos::parallel_for(
                  Kokkos::ThreadVectorRange(member, half), [&](const std::int64_t i) {
                    const float x = in[nope + i];
                    const float y = in[nope + half + i];
                    T* first = out + nope + i * pair.stride;
                    first[0] = static_cast<T>(x * cosine(s, i) + y * sine(s, i));
                    first[pair.distance] = static_cast<T>(y * cosine(s, i) - x * sine(s, i));
                  });
            });
      });
}

template <class T>
void latent_key_value_forward(const Execution& execution, const RopeTable& table,
                              const LatentHeads& shape, Matrix<const float> up,
                              Matrix<const float> compressed, T* k, T* v) {
  const std::int64_t tokens = up.extent(0);
  if (tokens == 0) return;
  const HeadIndex index = make_index(table, shape, tokens);
  expect_columns(up, tokens, shape.heads * (shape.nope_size + shape.value_size));
  const Matrix<const float> cosine = table.cosine, sine = table.sine;
  const Pair pair = pair_of(shape);
  const std::int64_t nope = shape.nope_size, half = shape.rope_size / 2, size = shape.key_size();
  const std::int64_t value = shape.value_size;
  const std::int64_t rank = static_cast<std::int64_t>(compressed.extent(1)) - shape.rope_size;
  TESSERA_EXPECT(rank >= 0 && static_cast<std::int64_t>(compressed.extent(0)) == tokens);
  Kokkos::parallel_for(
      "tessera::latent_key_value_forward", team_per_token(execution, tokens),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t token = member.league_rank();
        const std::int64_t s = token % index.length;
        const float* rope_key = &compressed(token, rank);
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, index.heads), [&](const std::int64_t head) {
              T* key_out = k + index(token, head) * size;
              T* value_out = v + index(token, head) * value;
              const float* in = &up(token, head * (nope + value));
              Kokkos::parallel_for(
                  Kokkos::ThreadVectorRange(member, nope),
                  [&](const std::int64_t i) { key_out[i] = static_cast<T>(in[i]); });
              Kokkos::parallel_for(
                  Kokkos::ThreadVectorRange(member, value),
                  [&](const std::int64_t i) { value_out[i] = static_cast<T>(in[nope + i]); });
              Kokkos::parallel_for(
                  Kokkos::ThreadVectorRange(member, half), [&](const std::int64_t i) {
                    const float x = rope_key[i * pair.stride];
                    const float y = rope_key[i * pair.stride + pair.distance];
                    key_out[nope + i] = static_cast<T>(x * cosine(s, i) - y * sine(s, i));
                    key_out[nope + half + i] = static_cast<T>(y * cosine(s, i) + x * sine(s, i));
                  });
            });
      });
}

namespace {

/// The last rope columns of dcompressed: the rotation is the same for all heads, so their gradients
/// are summed before they are rotated back, in the order of the heads.
void shared_key_backward(const Execution& execution, const RopeTable& table,
                         const LatentHeads& shape, const float* dk, Matrix<float> dcompressed) {
  const std::int64_t tokens = dcompressed.extent(0);
  const HeadIndex index = make_index(table, shape, tokens);
  const Matrix<const float> cosine = table.cosine, sine = table.sine;
  const Pair pair = pair_of(shape);
  const std::int64_t nope = shape.nope_size, half = shape.rope_size / 2, size = shape.key_size();
  const std::int64_t rank = static_cast<std::int64_t>(dcompressed.extent(1)) - shape.rope_size;
  TESSERA_EXPECT(rank >= 0);
  Kokkos::parallel_for(
      "tessera::latent_shared_key_backward", team_per_token(execution, tokens),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t token = member.league_rank();
        const std::int64_t s = token % index.length;
        Kokkos::parallel_for(Kokkos::TeamVectorRange(member, half), [&](const std::int64_t i) {
          float x = 0.0f;
          float y = 0.0f;
          for (std::int64_t head = 0; head < index.heads; ++head) {
            const float* in = dk + index(token, head) * size + nope;
            x += in[i];
            y += in[half + i];
          }
          float* first = &dcompressed(token, rank + i * pair.stride);
          first[0] = x * cosine(s, i) + y * sine(s, i);
          first[pair.distance] = y * cosine(s, i) - x * sine(s, i);
        });
      });
}

}  // namespace

template <class T>
void latent_key_value_backward(const Execution& execution, const RopeTable& table,
                               const LatentHeads& shape, const float* dk, const float* dv,
                               Matrix<T> dup, Matrix<float> dcompressed) {
  const std::int64_t tokens = dup.extent(0);
  if (tokens == 0) return;
  const HeadIndex index = make_index(table, shape, tokens);
  const std::int64_t nope = shape.nope_size, size = shape.key_size(), value = shape.value_size;
  expect_columns(dup, tokens, shape.heads * (nope + value));
  TESSERA_EXPECT(static_cast<std::int64_t>(dcompressed.extent(0)) == tokens);
  Kokkos::parallel_for(
      "tessera::latent_key_value_backward", team_per_token(execution, tokens),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t token = member.league_rank();
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, index.heads), [&](const std::int64_t head) {
              const float* key_in = dk + index(token, head) * size;
              const float* value_in = dv + index(token, head) * value;
              T* out = &dup(token, head * (nope + value));
              Kokkos::parallel_for(
                  Kokkos::ThreadVectorRange(member, nope),
                  [&](const std::int64_t i) { out[i] = static_cast<T>(key_in[i]); });
              Kokkos::parallel_for(
                  Kokkos::ThreadVectorRange(member, value),
                  [&](const std::int64_t i) { out[nope + i] = static_cast<T>(value_in[i]); });
            });
      });
  shared_key_backward(execution, table, shape, dk, dcompressed);
}

#define TESSERA_INSTANTIATE(T)                                                                   \
  template void latent_query_forward<T>(const Execution&, const RopeTable&, const LatentHeads&,  \
                                        Matrix<const float>, T*);                                \
  template void latent_query_backward<T>(const Execution&, const RopeTable&, const LatentHeads&, \
                                         const float*, Matrix<T>);                               \
  template void latent_key_value_forward<T>(const Execution&, const RopeTable&,                  \
                                            const LatentHeads&, Matrix<const float>,             \
                                            Matrix<const float>, T*, T*);                        \
  template void latent_key_value_backward<T>(const Execution&, const RopeTable&,                 \
                                             const LatentHeads&, const float*, const float*,     \
                                             Matrix<T>, Matrix<float>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
