// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/sampler.hpp"

#include "base/contract.hpp"
#include "base/error.hpp"

namespace tessera::trainer {
namespace {

constexpr int num_rounds = 8;

// The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every input bit changes half the
// output.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options)
    : num_training_(options.num_sequences - options.num_held_out),
      num_held_out_(options.num_held_out),
      seed_(options.seed) {
  if (num_held_out_ < 0 || num_training_ < 1) {
    fail(ErrorKind::usage,
         "{} of {} sequences are held out for evaluation; at least one must be left to train on",
         num_held_out_, options.num_sequences);
  }
  while (half_bits_ < 31 && (std::int64_t{1} << (2 * half_bits_)) < num_training_) ++half_bits_;
}

std::uint64_t Sampler::permute(std::uint64_t value, std::uint64_t key) const {
  const std::uint64_t half_mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_, right = value & half_mask;
  for (std::uint64_t round = 0; round < num_rounds; ++round) {
    const std::uint64_t next = left ^ (mix(key ^ mix(right + (round << 32))) & half_mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

std::int64_t Sampler::sequence_at(std::int64_t position) const {
  TESSERA_EXPECT(position >= 0);
  const std::int64_t epoch = position / num_training_;
  const std::uint64_t key = mix(mix(seed_) ^ static_cast<std::uint64_t>(epoch));
  auto value = static_cast<std::uint64_t>(position % num_training_);
  // Values beyond the last sequence are walked through until the cycle comes back into range; less
  // than four steps on average, because the network's domain is less than four times the range.
  do {
    value = permute(value, key);
  } while (value >= static_cast<std::uint64_t>(num_training_));
  return static_cast<std::int64_t>(value);
}

std::vector<std::int64_t> Sampler::sequences_from(std::int64_t position, std::int64_t count) const {
  std::vector<std::int64_t> sequences;
  sequences.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) sequences.push_back(sequence_at(position + i));
  return sequences;
}

std::vector<std::int64_t> Sampler::held_out() const {
  std::vector<std::int64_t> sequences;
  for (std::int64_t i = 0; i < num_held_out_; ++i) sequences.push_back(num_training_ + i);
  return sequences;
}

}  // namespace tessera::trainer
