// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies and tables on the host. Each operation is rounded to f32 where transformers
// (5.23, modeling_rope_utils.py) rounds: at position 300 an exact frequency is already 1e-5 away
// from theirs.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/contract.hpp"
#include "kernel/rope.hpp"

namespace tessera::kernel {

namespace {

/// theta^(2 i / D), the power correctly rounded.
float wavelength(double theta, std::int64_t head_size, std::int64_t i) {
  const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_size);
  return static_cast<float>(
      std::pow(static_cast<double>(static_cast<float>(theta)), static_cast<double>(exponent)));
}

double magnitude_scale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const YarnOptions& options) {
  if (options.attention_factor != 0.0) return options.attention_factor;
  if (options.mscale == 0.0 || options.mscale_all_dim == 0.0) {
    return magnitude_scale(options.factor, 1.0);
  }
  return magnitude_scale(options.factor, options.mscale) /
         magnitude_scale(options.factor, options.mscale_all_dim);
}

/// The dimension whose wavelength turns `rotations` times within the original context.
double correction_dimension(const YarnOptions& options, double rotations) {
  const double context = static_cast<double>(options.original_max_position);
  return static_cast<double>(options.head_size) *
         std::log(context / (rotations * 2.0 * std::numbers::pi)) / (2.0 * std::log(options.theta));
}

}  // namespace

RopeFrequencies yarn_frequencies(const YarnOptions& options) {
  TESSERA_EXPECT(options.head_size > 0 && options.head_size % 2 == 0);
  double low = correction_dimension(options, options.beta_fast);
  double high = correction_dimension(options, options.beta_slow);
  if (options.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(options.head_size - 1));
  if (low == high) high += 0.001;
  RopeFrequencies frequencies;
  frequencies.attention_factor = yarn_attention_factor(options);
  for (std::int64_t i = 0; i < options.head_size / 2; ++i) {
    const float length = wavelength(options.theta, options.head_size, i);
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float extrapolated_part = 1.0f - ramp;
    const float interpolated = 1.0f / (static_cast<float>(options.factor) * length);
    const float extrapolated = 1.0f / length;
    frequencies.inverse.push_back(interpolated * (1.0f - extrapolated_part) +
                                  extrapolated * extrapolated_part);
  }
  return frequencies;
}

RopeFrequencies default_frequencies(double theta, std::int64_t head_size) {
  TESSERA_EXPECT(head_size > 0 && head_size % 2 == 0);
  RopeFrequencies frequencies;
  for (std::int64_t i = 0; i < head_size / 2; ++i) {
    frequencies.inverse.push_back(1.0f / wavelength(theta, head_size, i));
  }
  return frequencies;
}

RopeFrequencies linear_frequencies(double theta, std::int64_t head_size, double factor) {
  RopeFrequencies frequencies = default_frequencies(theta, head_size);
  for (double& inverse : frequencies.inverse) {
    inverse = static_cast<float>(inverse) / static_cast<float>(factor);
  }
  return frequencies;
}

RopeFrequencies llama3_frequencies(const Llama3Options& options) {
  const double context = static_cast<double>(options.original_max_position);
  const float factor = static_cast<float>(options.factor);
  const float low = static_cast<float>(options.low_frequency_factor);
  const float longest = static_cast<float>(context / options.low_frequency_factor);
  const float shortest = static_cast<float>(context / options.high_frequency_factor);
  const float mixed_range =
      static_cast<float>(options.high_frequency_factor - options.low_frequency_factor);
  RopeFrequencies frequencies = default_frequencies(options.theta, options.head_size);
  for (double& inverse : frequencies.inverse) {
    const float unscaled = static_cast<float>(inverse);
    // A number divided by a tensor is its reciprocal times the number in torch: two roundings.
    const float length = (1.0f / unscaled) * static_cast<float>(2.0 * std::numbers::pi);
    if (length > longest) {
      inverse = unscaled / factor;
    } else if (length >= shortest) {
      const float smooth = ((1.0f / length) * static_cast<float>(context) - low) / mixed_range;
      inverse = (1.0f - smooth) * unscaled / factor + smooth * unscaled;
    }
  }
  return frequencies;
}

RopeTable make_rope_table(const RopeFrequencies& frequencies, std::int64_t length) {
  const std::int64_t half = static_cast<std::int64_t>(frequencies.inverse.size());
  RopeTable table{allocate<Matrix<float>>("tessera::rope_cosine", length, half),
                  allocate<Matrix<float>>("tessera::rope_sine", length, half)};
  const auto cosine = host_mirror(table.cosine);
  const auto sine = host_mirror(table.sine);
  for (std::int64_t s = 0; s < length; ++s) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(s) * static_cast<float>(frequencies.inverse[i]);
      const double exact = angle;
      cosine(s, i) = static_cast<float>(std::cos(exact) * frequencies.attention_factor);
      sine(s, i) = static_cast<float>(std::sin(exact) * frequencies.attention_factor);
    }
  }
  Kokkos::deep_copy(table.cosine, cosine);
  Kokkos::deep_copy(table.sine, sine);
  return table;
}

}  // namespace tessera::kernel
