// SPDX-License-Identifier: Apache-2.0
#include "place_values.hpp"

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "widen.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t step_elements = 2048;  ///< of which two copies fit into the first cache
constexpr std::int64_t line_bytes = 64;

/// Copies without reading the destination into the cache. Whole lines alone: the processor would
/// write a part of one by itself.
void stream(const float* from, std::int64_t count, float* to) {
#ifdef __SSE2__
  const auto in_line = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) % line_bytes);
  const std::int64_t head =
      std::min<std::int64_t>((line_bytes - in_line) % line_bytes / sizeof(float), count);
  std::memcpy(to, from, std::size_t(head) * sizeof(float));
  constexpr std::int64_t line = line_bytes / sizeof(float);
  std::int64_t k = head;
  for (; k + line <= count; k += line) {
#ifdef __AVX512F__
    _mm512_stream_ps(to + k, _mm512_loadu_ps(from + k));
#else
    for (std::int64_t i = k; i < k + line; i += 4) _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
#endif
  }
  from += k, to += k, count -= k;
#endif
  std::memcpy(to, from, std::size_t(count) * sizeof(float));
}

}  // namespace

void place_values(Dtype dtype, const std::byte* from, std::int64_t count, float* to,
                  std::int64_t first, TensorHash& hash) {
  alignas(line_bytes) std::array<float, step_elements> values;
  for (std::int64_t done = 0; done < count; done += step_elements) {
    const std::int64_t step = std::min(step_elements, count - done);
    widen(dtype, from + done * std::int64_t(size_of(dtype)), step, values.data());
    hash.add(first + done, std::span<const float>(values).first(std::size_t(step)));
    stream(values.data(), step, to + done);
  }
}

void finish_placing() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace tessera::checkpoint
