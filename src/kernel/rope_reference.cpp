// SPDX-License-Identifier: Apache-2.0
// The rotation of heads as plain loops with f64 products: what the tests hold the Kokkos version
// to. Host memory.
#include "kernel/rope.hpp"

namespace tessera::kernel::reference {

namespace {

/// Calls body(token, head, s, offset in [B, Hkv, S, G, D]) in the order of that layout.
template <class Body>
void for_each_head(std::int64_t sequences, std::int64_t kv_heads, std::int64_t length,
                   std::int64_t group, std::int64_t head_size, const Body& body) {
  std::int64_t offset = 0;
  for (std::int64_t b = 0; b < sequences; ++b) {
    for (std::int64_t kv = 0; kv < kv_heads; ++kv) {
      for (std::int64_t s = 0; s < length; ++s) {
        for (std::int64_t g = 0; g < group; ++g) {
          body(b * length + s, kv * group + g, s, offset);
          offset += head_size;
        }
      }
    }
  }
}

}  // namespace

template <class T>
void rope_forward(const RopeTable& table, std::int64_t sequences, std::int64_t kv_heads,
                  std::int64_t group, Matrix<const float> projected, Vector<const T> bias,
                  T* heads) {
  if (projected.extent(0) == 0) return;
  const std::int64_t length = static_cast<std::int64_t>(projected.extent(0)) / sequences;
  const std::int64_t size = static_cast<std::int64_t>(projected.extent(1)) / (kv_heads * group);
  const auto biased = [&](std::int64_t token, std::int64_t column) {
    const double value = projected(token, column);
    return bias.extent(0) > 0 ? value + static_cast<float>(bias(column)) : value;
  };
  for_each_head(sequences, kv_heads, length, group, size,
                [&](std::int64_t token, std::int64_t head, std::int64_t s, std::int64_t offset) {
                  for (std::int64_t i = 0; i < size / 2; ++i) {
                    const double x = biased(token, head * size + i);
                    const double y = biased(token, head * size + size / 2 + i);
                    const double cosine = table.cosine(s, i);
                    const double sine = table.sine(s, i);
                    heads[offset + i] = T(static_cast<float>(x * cosine - y * sine));
                    heads[offset + size / 2 + i] = T(static_cast<float>(y * cosine + x * sine));
                  }
                });
}

template <class T>
void rope_backward(const RopeTable& table, std::int64_t sequences, std::int64_t kv_heads,
                   std::int64_t group, const float* dheads, Matrix<T> dprojected) {
  if (dprojected.extent(0) == 0) return;
  const std::int64_t length = static_cast<std::int64_t>(dprojected.extent(0)) / sequences;
  const std::int64_t size = static_cast<std::int64_t>(dprojected.extent(1)) / (kv_heads * group);
  for_each_head(sequences, kv_heads, length, group, size,
                [&](std::int64_t token, std::int64_t head, std::int64_t s, std::int64_t offset) {
                  for (std::int64_t i = 0; i < size / 2; ++i) {
                    const double x = dheads[offset + i];
                    const double y = dheads[offset + size / 2 + i];
                    const double cosine = table.cosine(s, i);
                    const double sine = table.sine(s, i);
                    const std::int64_t low = head * size + i;
                    dprojected(token, low) = T(static_cast<float>(x * cosine + y * sine));
                    dprojected(token, low + size / 2) =
                        T(static_cast<float>(y * cosine - x * sine));
                  }
                });
}

#define TESSERA_INSTANTIATE(T)                                                               \
  template void rope_forward<T>(const RopeTable&, std::int64_t, std::int64_t, std::int64_t,  \
                                Matrix<const float>, Vector<const T>, T*);                   \
  template void rope_backward<T>(const RopeTable&, std::int64_t, std::int64_t, std::int64_t, \
                                 const float*, Matrix<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernel::reference
