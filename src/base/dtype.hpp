// SPDX-License-Identifier: Apache-2.0
// Element types: bfloat16 that runs on host and device, and the run-time tag of each element type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__) || defined(__HIPCC__)
#define TESSERA_HOST_DEVICE __host__ __device__
#else
#define TESSERA_HOST_DEVICE
#endif

namespace tessera {

/// bfloat16: the upper half of an IEEE binary32. Converts to float exactly and from float by
/// rounding to nearest even; NaN stays NaN.
struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  TESSERA_HOST_DEVICE bf16(
      float value) {  // NOLINT(google-explicit-constructor): kernels assign floats
    std::uint32_t u;
    memcpy(&u, &value, sizeof u);
    const bool is_nan = (u & 0x7fffffffu) > 0x7f800000u;
    const std::uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    // A NaN keeps its upper payload; one that has none there must not become infinity.
    const std::uint32_t nan = (u >> 16) | ((u & 0x7f0000u) != 0 ? 0u : 0x40u);
    bits = static_cast<std::uint16_t>(is_nan ? nan : rounded);
  }
  TESSERA_HOST_DEVICE operator float() const {  // NOLINT(google-explicit-constructor)
    const std::uint32_t u = static_cast<std::uint32_t>(bits) << 16;
    float value;
    memcpy(&value, &u, sizeof value);
    return value;
  }
};
static_assert(sizeof(bf16) == 2);

/// Run-time tag of an element type, as met in files and in collectives.
enum class Dtype : std::int32_t { u8 = 0, i32, i64, u64, f16, bf16, f32, f64, f8_e4m3 };

std::size_t size_of(Dtype dtype);    ///< [bytes]
const char* to_string(Dtype dtype);  ///< "f32", "bf16", ...

template <class T>
struct dtype_of_;
template <>
struct dtype_of_<std::uint8_t> {
  static constexpr Dtype value = Dtype::u8;
};
template <>
struct dtype_of_<char> {
  static constexpr Dtype value = Dtype::u8;
};
template <>
struct dtype_of_<std::byte> {
  static constexpr Dtype value = Dtype::u8;
};
template <>
struct dtype_of_<std::int32_t> {
  static constexpr Dtype value = Dtype::i32;
};
template <>
struct dtype_of_<std::int64_t> {
  static constexpr Dtype value = Dtype::i64;
};
template <>
struct dtype_of_<std::uint64_t> {
  static constexpr Dtype value = Dtype::u64;
};
template <>
struct dtype_of_<bf16> {
  static constexpr Dtype value = Dtype::bf16;
};
template <>
struct dtype_of_<float> {
  static constexpr Dtype value = Dtype::f32;
};
template <>
struct dtype_of_<double> {
  static constexpr Dtype value = Dtype::f64;
};

/// `dtype_of<float>` is `Dtype::f32`.
template <class T>
inline constexpr Dtype dtype_of = dtype_of_<T>::value;

/// IEEE binary16 bits to float, exactly. local, host.
float f16_to_float(std::uint16_t bits);
/// float to IEEE binary16 bits, to nearest even; beyond the range infinity. local, host.
std::uint16_t float_to_f16(float value);
/// F8_E4M3 (the finite variant "FN": no infinity, 0x7f and 0xff are NaN, largest 448) to float,
/// exactly. local, host.
float f8_e4m3_to_float(std::uint8_t bits);

}  // namespace tessera
