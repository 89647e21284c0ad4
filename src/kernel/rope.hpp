// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (arXiv:2104.09864), half-split pairs (i, i + D/2), with the frequency
// scalings that model configurations name. Also moves heads into attention's group-major layout.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/view.hpp"

namespace tessera::kernel {

/// Frequencies of a rope variant.
struct RopeFrequencies {
  std::vector<double> inverse;    ///< [D / 2] inverse frequencies [1/position], f32 values
  double attention_factor = 1.0;  ///< multiplies cos and sin (YaRN's concentration)
};

/// YaRN, as transformers' _compute_yarn_parameters (arXiv:2309.00071, section 3).
struct YarnOptions {
  double theta = 10000.0;
  std::int64_t head_size = 0;
  double factor = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::int64_t original_max_position = 4096;
  bool truncate = true;  ///< round the correction range to whole dimensions
  /// 0: computed, 0.1 ln(factor) + 1 or from mscale and mscale_all_dim
  double attention_factor = 0.0;
  double mscale = 0.0;          ///< 0: absent
  double mscale_all_dim = 0.0;  ///< 0: absent
};
/// Rounded to f32 operation by operation as there: exact frequencies would turn position 300 by
/// 1e-5 more or less than the model was trained and is compared with. local, host.
RopeFrequencies yarn_frequencies(const YarnOptions& options);
/// inverse[i] = theta^(-2 i / D), rounded as above. local, host.
RopeFrequencies default_frequencies(double theta, std::int64_t head_size);
/// The above divided by factor (position interpolation, arXiv:2306.15595), rounded as above.
/// local, host.
RopeFrequencies linear_frequencies(double theta, std::int64_t head_size, double factor);

/// Llama 3.1's scaling, as transformers' _compute_llama3_parameters: wavelengths beyond
/// original_max_position / low_frequency_factor are stretched by factor, those below
/// original_max_position / high_frequency_factor stay, between them both are mixed.
struct Llama3Options {
  double theta = 10000.0;
  std::int64_t head_size = 0;
  double factor = 1.0;
  double low_frequency_factor = 1.0;
  double high_frequency_factor = 4.0;  ///< not low_frequency_factor
  std::int64_t original_max_position = 8192;
};
/// Rounded as above. local, host.
RopeFrequencies llama3_frequencies(const Llama3Options& options);

/// cos and sin for positions 0 .. S-1, the attention factor included.
struct RopeTable {
  Matrix<float> cosine;  ///< [S, D / 2]
  Matrix<float> sine;    ///< [S, D / 2]
};
/// The angle is an f32 product, as in transformers; its cosine and sine are f64. Computed on the
/// host, then moved to Memory. local.
RopeTable make_rope_table(const RopeFrequencies& frequencies, std::int64_t length);

/// Rotates heads and moves them: projected [B * S, Hkv * G * D] f32 (head h = kv * G + g) plus
/// bias [Hkv * G * D] T (or empty) -> heads [B, Hkv, S, G, D] T. For keys G = 1. local.
template <class T>
void rope_forward(const Execution& execution, const RopeTable& table, std::int64_t sequences,
                  std::int64_t kv_heads, std::int64_t group, Matrix<const float> projected,
                  Vector<const T> bias, T* heads);

/// Transposed rotation back: dheads [B, Hkv, S, G, D] f32 -> dprojected [B * S, Hkv * G * D] T.
/// local.
template <class T>
void rope_backward(const Execution& execution, const RopeTable& table, std::int64_t sequences,
                   std::int64_t kv_heads, std::int64_t group, const float* dheads,
                   Matrix<T> dprojected);

/// The same moves without rotation, for values:
/// projected [B * S, Hkv * D] f32 + bias -> heads [B, Hkv, S, D] T. local.
template <class T>
void split_heads(const Execution& execution, std::int64_t sequences, std::int64_t kv_heads,
                 Matrix<const float> projected, Vector<const T> bias, T* heads);
template <class T>
void merge_heads(const Execution& execution, std::int64_t sequences, std::int64_t kv_heads,
                 const float* dheads, Matrix<T> dprojected);

namespace reference {
template <class T>
void rope_forward(const RopeTable& table, std::int64_t sequences, std::int64_t kv_heads,
                  std::int64_t group, Matrix<const float> projected, Vector<const T> bias,
                  T* heads);
template <class T>
void rope_backward(const RopeTable& table, std::int64_t sequences, std::int64_t kv_heads,
                   std::int64_t group, const float* dheads, Matrix<T> dprojected);
}  // namespace reference

}  // namespace tessera::kernel
