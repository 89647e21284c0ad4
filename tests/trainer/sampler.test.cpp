// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/sampler.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <set>

#include "base/error.hpp"

using namespace tessera;
using namespace tessera::trainer;

namespace {

std::vector<std::int64_t> epoch(const Sampler& sampler, std::int64_t epoch_idx) {
  return sampler.sequences_from(epoch_idx * sampler.num_training(), sampler.num_training());
}

bool is_permutation_of_all(std::vector<std::int64_t> sequences) {
  std::sort(sequences.begin(), sequences.end());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i] != static_cast<std::int64_t>(i)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("Each epoch visits every sequence exactly once") {
  for (const std::int64_t count : {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097}) {
    const Sampler sampler({.num_sequences = count, .seed = 7});
    for (const std::int64_t e : {0, 1, 2, 50}) {
      INFO(count << " sequences, epoch " << e);
      CHECK(is_permutation_of_all(epoch(sampler, e)));
    }
  }
}

TEST_CASE("Epochs and seeds differ in order") {
  const Sampler sampler({.num_sequences = 500, .seed = 1});
  const Sampler other({.num_sequences = 500, .seed = 2});
  CHECK(epoch(sampler, 0) != epoch(sampler, 1));
  CHECK(epoch(sampler, 0) != epoch(other, 0));
  CHECK(epoch(sampler, 1) != epoch(other, 0));
}

TEST_CASE("The order looks random: places and neighbours are unrelated") {
  const std::int64_t count = 4000;
  const Sampler sampler({.num_sequences = count, .seed = 3});
  const std::vector<std::int64_t> order = epoch(sampler, 0);
  const double mean = (count - 1) / 2.0, variance = (count * count - 1.0) / 12.0;
  double with_place = 0.0, with_next = 0.0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    with_place += (static_cast<double>(order[i]) - mean) * (static_cast<double>(i) - mean);
    with_next += (static_cast<double>(order[i]) - mean) *
                 (static_cast<double>(order[(i + 1) % order.size()]) - mean);
  }
  // Correlations of a random order scatter by 1 / sqrt(count) = 0.016.
  CHECK(std::abs(with_place / (count * variance)) < 0.06);
  CHECK(std::abs(with_next / (count * variance)) < 0.06);
}

TEST_CASE("Every sequence comes about equally often in every place of small epochs") {
  const std::int64_t count = 5, num_epochs = 5000;
  const Sampler sampler({.num_sequences = count, .seed = 11});
  std::vector<int> seen(static_cast<std::size_t>(count * count));
  for (std::int64_t position = 0; position < count * num_epochs; ++position) {
    ++seen[static_cast<std::size_t>(position % count * count + sampler.sequence_at(position))];
  }
  for (const int times : seen) CHECK(std::abs(times - 1000) < 150);  // five standard deviations
}

TEST_CASE("A batch depends on the step alone, so a resumed run goes on where it was") {
  const Sampler sampler({.num_sequences = 37, .seed = 5});
  std::vector<std::int64_t> all;
  for (std::int64_t step = 0; step < 20; ++step) {
    const auto batch = sampler.sequences_of_step(step, 6);
    all.insert(all.end(), batch.begin(), batch.end());
  }
  const Sampler resumed({.num_sequences = 37, .seed = 5});
  CHECK(resumed.sequences_of_step(13, 6) == std::vector(all.begin() + 78, all.begin() + 84));
  CHECK(resumed.sequences_from(0, 120) == all);
}

TEST_CASE("A batch that crosses the border of an epoch goes on in the next one's order") {
  const Sampler sampler({.num_sequences = 10, .seed = 5});
  const auto batch = sampler.sequences_of_step(1, 8);  // positions 8 to 15
  const auto first = epoch(sampler, 0), second = epoch(sampler, 1);
  CHECK(batch == std::vector<std::int64_t>{first[8], first[9], second[0], second[1], second[2],
                                           second[3], second[4], second[5]});
  CHECK(sampler.sequences_of_step(0, 25).size() == 25);  // a batch of more than an epoch
}

TEST_CASE("Sequences held out are the last ones and never trained on") {
  const Sampler sampler({.num_sequences = 50, .num_held_out = 8, .seed = 9});
  CHECK(sampler.num_training() == 42);
  CHECK(sampler.held_out() == std::vector<std::int64_t>{42, 43, 44, 45, 46, 47, 48, 49});
  CHECK(is_permutation_of_all(epoch(sampler, 0)));
  CHECK(is_permutation_of_all(epoch(sampler, 3)));
}

TEST_CASE("Holding out all sequences is a usage error") {
  for (const std::int64_t held_out : {5, 6, -1}) {
    try {
      Sampler({.num_sequences = 5, .num_held_out = held_out});
      FAIL("no error for " << held_out);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::usage);
    }
  }
}

TEST_CASE("The order is the same in every version: a seed means the same batches for ever") {
  const Sampler sampler({.num_sequences = 1000, .seed = 42});
  CHECK(sampler.sequences_from(0, 6) == std::vector<std::int64_t>{656, 276, 790, 225, 973, 855});
}
