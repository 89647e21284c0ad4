// SPDX-License-Identifier: Apache-2.0
// Rotation of heads and their move between token-major and group-major layout, with Kokkos: one
// team per token, heads over its threads, dimensions over their lanes.
#include "kernel/rope.hpp"

#include "base/contract.hpp"

namespace tessera::kernel {

namespace {

constexpr int num_lanes = 32;

/// Where the heads of token (b, s) lie in [B, Hkv, S, G, D].
struct HeadLayout {
  std::int64_t length;
  std::int64_t kv_heads;
  std::int64_t group;
  std::int64_t head_size;

  KOKKOS_INLINE_FUNCTION std::int64_t offset(std::int64_t token, std::int64_t head) const {
    const std::int64_t b = token / length;
    const std::int64_t s = token % length;
    return (((b * kv_heads + head / group) * length + s) * group + head % group) * head_size;
  }
};

HeadLayout make_layout(std::int64_t tokens, std::int64_t columns, std::int64_t sequences,
                       std::int64_t kv_heads, std::int64_t group) {
  TESSERA_EXPECT(sequences > 0 && tokens % sequences == 0 && columns % (kv_heads * group) == 0);
  return {tokens / sequences, kv_heads, group, columns / (kv_heads * group)};
}

/// Zeros where there is no bias: a condition in the inner loop would keep it from being vectorised.
template <class T>
Vector<const T> bias_or_zeros(Vector<const T> bias, std::int64_t columns) {
  if (bias.extent(0) == 0) return new_zero_vector<T>(Execution(), "no bias", columns);
  TESSERA_EXPECT(static_cast<std::int64_t>(bias.extent(0)) == columns);
  return bias;
}

}  // namespace

template <class T>
void rope_forward(const Execution& execution, const RopeTable& table, std::int64_t sequences,
                  std::int64_t kv_heads, std::int64_t group, Matrix<const float> projected,
                  Vector<const T> bias, T* heads) {
  const std::int64_t tokens = projected.extent(0);
  if (tokens == 0) return;
  const HeadLayout layout = make_layout(tokens, projected.extent(1), sequences, kv_heads, group);
  const std::int64_t half = layout.head_size / 2;
  const Matrix<const float> cosine = table.cosine;
  const Matrix<const float> sine = table.sine;
  bias = bias_or_zeros<T>(bias, projected.extent(1));
  TESSERA_EXPECT(static_cast<std::int64_t>(cosine.extent(0)) >= layout.length &&
                 static_cast<std::int64_t>(cosine.extent(1)) == half);
  Kokkos::parallel_for(
      "tessera::rope_forward", Team(execution, static_cast<int>(tokens), Kokkos::AUTO, num_lanes),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t token = member.league_rank();
        const std::int64_t s = token % layout.length;
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, layout.kv_heads * layout.group),
            [&](const std::int64_t head) {
              T* out = heads + layout.offset(token, head);
              const std::int64_t first = head * layout.head_size;
              Kokkos::parallel_for(
                  Kokkos::ThreadVectorRange(member, half), [&](const std::int64_t i) {
                    const std::int64_t low = first + i;
                    const std::int64_t high = low + half;
                    const float x = projected(token, low) + static_cast<float>(bias(low));
                    const float y = projected(token, high) + static_cast<float>(bias(high));
                    out[i] = static_cast<T>(x * cosine(s, i) - y * sine(s, i));
                    out[i + half] = static_cast<T>(y * cosine(s, i) + x * sine(s, i));
                  });
            });
      });
}

template <class T>
void rope_backward(const Execution& execution, const RopeTable& table, std::int64_t sequences,
                   std::int64_t kv_heads, std::int64_t group, const float* dheads,
                   Matrix<T> dprojected) {
  const std::int64_t tokens = dprojected.extent(0);
  if (tokens == 0) return;
  const HeadLayout layout = make_layout(tokens, dprojected.extent(1), sequences, kv_heads, group);
  const std::int64_t half = layout.head_size / 2;
  const Matrix<const float> cosine = table.cosine;
  const Matrix<const float> sine = table.sine;
  TESSERA_EXPECT(static_cast<std::int64_t>(cosine.extent(0)) >= layout.length &&
                 static_cast<std::int64_t>(cosine.extent(1)) == half);
  Kokkos::parallel_for(
      "tessera::rope_backward", Team(execution, static_cast<int>(tokens), Kokkos::AUTO, num_lanes),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t token = member.league_rank();
        const std::int64_t s = token % layout.length;
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, layout.kv_heads * layout.group),
            [&](const std::int64_t head) {
              const float* in = dheads + layout.offset(token, head);
              const std::int64_t first = head * layout.head_size;
              Kokkos::parallel_for(
                  Kokkos::ThreadVectorRange(member, half), [&](const std::int64_t i) {
                    const float dx = in[i] * cosine(s, i) + in[i + half] * sine(s, i);
                    const float dy = in[i + half] * cosine(s, i) - in[i] * sine(s, i);
                    dprojected(token, first + i) = static_cast<T>(dx);
                    dprojected(token, first + i + half) = static_cast<T>(dy);
                  });
            });
      });
}

template <class T>
void split_heads(const Execution& execution, std::int64_t sequences, std::int64_t kv_heads,
                 Matrix<const float> projected, Vector<const T> bias, T* heads) {
  const std::int64_t tokens = projected.extent(0);
  if (tokens == 0) return;
  const HeadLayout layout = make_layout(tokens, projected.extent(1), sequences, kv_heads, 1);
  bias = bias_or_zeros<T>(bias, projected.extent(1));
  Kokkos::parallel_for(
      "tessera::split_heads", Team(execution, static_cast<int>(tokens), Kokkos::AUTO, num_lanes),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t token = member.league_rank();
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, layout.kv_heads), [&](const std::int64_t head) {
              T* out = heads + layout.offset(token, head);
              const std::int64_t first = head * layout.head_size;
              Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, layout.head_size),
                                   [&](const std::int64_t i) {
                                     out[i] = static_cast<T>(projected(token, first + i) +
                                                             static_cast<float>(bias(first + i)));
                                   });
            });
      });
}

template <class T>
void merge_heads(const Execution& execution, std::int64_t sequences, std::int64_t kv_heads,
                 const float* dheads, Matrix<T> dprojected) {
  const std::int64_t tokens = dprojected.extent(0);
  if (tokens == 0) return;
  const HeadLayout layout = make_layout(tokens, dprojected.extent(1), sequences, kv_heads, 1);
  Kokkos::parallel_for(
      "tessera::merge_heads", Team(execution, static_cast<int>(tokens), Kokkos::AUTO, num_lanes),
      KOKKOS_LAMBDA(const Team::member_type& member) {
        const std::int64_t token = member.league_rank();
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, layout.kv_heads), [&](const std::int64_t head) {
              const float* in = dheads + layout.offset(token, head);
              const std::int64_t first = head * layout.head_size;
              Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, layout.head_size),
                                   [&](const std::int64_t i) {
                                     dprojected(token, first + i) = static_cast<T>(in[i]);
                                   });
            });
      });
}

#define TESSERA_INSTANTIATE(T)                                                                    \
  template void rope_forward<T>(const Execution&, const RopeTable&, std::int64_t, std::int64_t,   \
                                std::int64_t, Matrix<const float>, Vector<const T>, T*);          \
  template void rope_backward<T>(const Execution&, const RopeTable&, std::int64_t, std::int64_t,  \
                                 std::int64_t, const float*, Matrix<T>);                          \
  template void split_heads<T>(const Execution&, std::int64_t, std::int64_t, Matrix<const float>, \
                               Vector<const T>, T*);                                              \
  template void merge_heads<T>(const Execution&, std::int64_t, std::int64_t, const float*,        \
                               Matrix<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel
