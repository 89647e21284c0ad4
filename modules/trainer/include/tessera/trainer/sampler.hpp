// SPDX-License-Identifier: Apache-2.0
// Which sequences each training step sees: a function of the seed and the position alone, so that a
// resumed run and another grid draw the same batches.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera::trainer {

struct SamplerOptions {
  std::int64_t num_sequences = 0;  ///< in the data
  std::int64_t num_held_out = 0;   ///< the last of them, for evaluation alone
  std::uint64_t seed = 0;
};

/// Position p counts the training sequences drawn since the start of the run; epoch p / n visits
/// each of the n training sequences once, in an order of its own. Nothing is stored: the order is a
/// keyed permutation (a Feistel network with cycle walking; Black and Rogaway, CT-RSA 2002, section
/// 3).
class Sampler {
 public:
  /// Throws Error::usage if nothing is left to train on. local.
  explicit Sampler(const SamplerOptions& options);

  std::int64_t num_training() const { return num_training_; }
  std::int64_t num_held_out() const { return num_held_out_; }

  /// The sequence at one position. local.
  std::int64_t sequence_at(std::int64_t position) const;
  /// `count` positions from `position` on; they may cross into the next epoch. local.
  std::vector<std::int64_t> sequences_from(std::int64_t position, std::int64_t count) const;
  /// The whole global batch of a step, counted from 0. local.
  std::vector<std::int64_t> sequences_of_step(std::int64_t step, std::int64_t batch) const {
    return sequences_from(step * batch, batch);
  }
  /// The sequences held out, in order. local.
  std::vector<std::int64_t> held_out() const;

 private:
  std::uint64_t permute(std::uint64_t value, std::uint64_t key) const;

  std::int64_t num_training_ = 0;
  std::int64_t num_held_out_ = 0;
  std::uint64_t seed_ = 0;
  int half_bits_ = 1;  ///< the Feistel network permutes 2^(2 half_bits) >= num_training values
};

}  // namespace tessera::trainer
