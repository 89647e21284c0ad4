// SPDX-License-Identifier: Apache-2.0
// Heads of latent attention as plain loops with f64 products: what the tests hold the Kokkos
// version to. Host memory.
#include "kernel/latent_heads.hpp"

namespace tessera::kernel::reference {

namespace {

/// Calls body(token, head, s, number of the head in [B, H, S]) in the order of that layout.
template <class Body>
void for_each_head(const LatentHeads& shape, std::int64_t tokens, const Body& body) {
  const std::int64_t length = shape.sequences > 0 ? tokens / shape.sequences : 0;
  std::int64_t number = 0;
  for (std::int64_t b = 0; b < shape.sequences; ++b) {
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      for (std::int64_t s = 0; s < length; ++s) body(b * length + s, head, s, number++);
    }
  }
}

/// Columns of the i-th pair in the rope part of a projection.
std::int64_t first_of(const LatentHeads& shape, std::int64_t i) {
  return shape.interleaved ? 2 * i : i;
}
std::int64_t second_of(const LatentHeads& shape, std::int64_t i) {
  return shape.interleaved ? 2 * i + 1 : i + shape.rope_size / 2;
}

template <class T>
void rotate(const RopeTable& table, const LatentHeads& shape, std::int64_t s, const float* in,
            T* out) {
  for (std::int64_t i = 0; i < shape.rope_size / 2; ++i) {
    const double x = in[first_of(shape, i)], y = in[second_of(shape, i)];
    const double cosine = table.cosine(s, i), sine = table.sine(s, i);
    out[i] = T(static_cast<float>(x * cosine - y * sine));
    out[i + shape.rope_size / 2] = T(static_cast<float>(y * cosine + x * sine));
  }
}

/// Calls store(column of the rope part, gradient).
template <class Store>
void rotate_back(const RopeTable& table, const LatentHeads& shape, std::int64_t s, const float* in,
                 const Store& store) {
  for (std::int64_t i = 0; i < shape.rope_size / 2; ++i) {
    const double x = in[i], y = in[i + shape.rope_size / 2];
    const double cosine = table.cosine(s, i), sine = table.sine(s, i);
    store(first_of(shape, i), x * cosine + y * sine);
    store(second_of(shape, i), y * cosine - x * sine);
  }
}

}  // namespace

template <class T>
void latent_query_forward(const RopeTable& table, const LatentHeads& shape,
                          Matrix<const float> projected, T* q) {
  const std::int64_t size = shape.key_size();
  for_each_head(shape, projected.extent(0),
                [&](std::int64_t token, std::int64_t head, std::int64_t s, std::int64_t number) {
                  const float* in = &projected(token, head * size);
                  T* out = q + number * size;
                  for (std::int64_t i = 0; i < shape.nope_size; ++i) out[i] = T(in[i]);
                  rotate(table, shape, s, in + shape.nope_size, out + shape.nope_size);
                });
}

template <class T>
void latent_query_backward(const RopeTable& table, const LatentHeads& shape, const float* dq,
                           Matrix<T> dprojected) {
  const std::int64_t size = shape.key_size();
  for_each_head(shape, dprojected.extent(0),
                [&](std::int64_t token, std::int64_t head, std::int64_t s, std::int64_t number) {
                  const float* in = dq + number * size;
                  T* out = &dprojected(token, head * size);
                  for (std::int64_t i = 0; i < shape.nope_size; ++i) out[i] = T(in[i]);
                  rotate_back(table, shape, s, in + shape.nope_size,
                              [&](std::int64_t column, double gradient) {
                                out[shape.nope_size + column] = T(static_cast<float>(gradient));
                              });
                });
}

template <class T>
void latent_key_value_forward(const RopeTable& table, const LatentHeads& shape,
                              Matrix<const float> up, Matrix<const float> compressed, T* k, T* v) {
  const std::int64_t rank = static_cast<std::int64_t>(compressed.extent(1)) - shape.rope_size;
  for_each_head(shape, up.extent(0),
                [&](std::int64_t token, std::int64_t head, std::int64_t s, std::int64_t number) {
                  const float* in = &up(token, head * (shape.nope_size + shape.value_size));
                  T* key = k + number * shape.key_size();
                  T* value = v + number * shape.value_size;
                  for (std::int64_t i = 0; i < shape.nope_size; ++i) key[i] = T(in[i]);
                  for (std::int64_t i = 0; i < shape.value_size; ++i) {
                    value[i] = T(in[shape.nope_size + i]);
                  }
                  rotate(table, shape, s, &compressed(token, rank), key + shape.nope_size);
                });
}

template <class T>
void latent_key_value_backward(const RopeTable& table, const LatentHeads& shape, const float* dk,
                               const float* dv, Matrix<T> dup, Matrix<float> dcompressed) {
  const std::int64_t rank = static_cast<std::int64_t>(dcompressed.extent(1)) - shape.rope_size;
  for (std::size_t t = 0; t < dcompressed.extent(0); ++t) {
    for (std::int64_t i = 0; i < shape.rope_size; ++i) dcompressed(t, rank + i) = 0.0f;
  }
  for_each_head(shape, dup.extent(0),
                [&](std::int64_t token, std::int64_t head, std::int64_t s, std::int64_t number) {
                  const float* key = dk + number * shape.key_size();
                  const float* value = dv + number * shape.value_size;
                  T* out = &dup(token, head * (shape.nope_size + shape.value_size));
                  for (std::int64_t i = 0; i < shape.nope_size; ++i) out[i] = T(key[i]);
                  for (std::int64_t i = 0; i < shape.value_size; ++i) {
                    out[shape.nope_size + i] = T(value[i]);
                  }
                  rotate_back(table, shape, s, key + shape.nope_size,
                              [&](std::int64_t column, double gradient) {
                                dcompressed(token, rank + column) += static_cast<float>(gradient);
                              });
                });
}

#define TESSERA_INSTANTIATE(T)                                                                     \
  template void latent_query_forward<T>(const RopeTable&, const LatentHeads&, Matrix<const float>, \
                                        T*);                                                       \
  template void latent_query_backward<T>(const RopeTable&, const LatentHeads&, const float*,       \
                                         Matrix<T>);                                               \
  template void latent_key_value_forward<T>(const RopeTable&, const LatentHeads&,                  \
                                            Matrix<const float>, Matrix<const float>, T*, T*);     \
  template void latent_key_value_backward<T>(const RopeTable&, const LatentHeads&, const float*,   \
                                             const float*, Matrix<T>, Matrix<float>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel::reference
