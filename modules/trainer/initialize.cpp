// SPDX-License-Identifier: Apache-2.0
#include "initialize.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tessera::trainer {
namespace {

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a counter in, 64 random bits out.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// FNV-1a: names are the same on every machine, std::hash is not.
std::uint64_t hash_name(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

/// Uniform in (0, 1].
double uniform(std::uint64_t bits) { return (static_cast<double>(bits >> 11) + 1.0) * 0x1.0p-53; }

/// Box-Muller on two counters of its own for each element.
double normal(std::uint64_t key, std::int64_t position) {
  const auto counter = 2 * static_cast<std::uint64_t>(position);
  const double u = uniform(mix(key ^ mix(counter))), v = uniform(mix(key ^ mix(counter + 1)));
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

using checkpoint::Initialisation;

Initialisation resolve(const Parameter& parameter, Initialisation how) {
  if (how != Initialisation::as_model) return how;
  if (parameter.name.ends_with("norm.weight")) return Initialisation::ones;
  return parameter.weight_decay ? Initialisation::normal : Initialisation::zeros;
}

}  // namespace

void initialize(const Slice& slice, Initialisation how, double standard_deviation,
                std::span<float> shard) {
  const std::uint64_t key = hash_name(slice.parameter->name);
  const std::span<float> values = shard.subspan(static_cast<std::size_t>(slice.shard_offset),
                                                static_cast<std::size_t>(slice.size()));
  switch (resolve(*slice.parameter, how)) {
    case Initialisation::as_model:
    case Initialisation::zeros: std::fill(values.begin(), values.end(), 0.0f); return;
    case Initialisation::ones: std::fill(values.begin(), values.end(), 1.0f); return;
    case Initialisation::normal: break;
  }
  for (std::int64_t i = slice.begin; i < slice.end; ++i) {
    values[static_cast<std::size_t>(i - slice.begin)] =
        static_cast<float>(standard_deviation * normal(key, i));
  }
}

}  // namespace tessera::trainer
