// SPDX-License-Identifier: Apache-2.0
// The choice by sigmoid scores within groups: against its reference, against transformers, against
// an enumeration of all choices, and its gradient against central differences.
#include "kernel/sigmoid_top_k.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

struct Choice {
  Matrix<std::int32_t> index;
  Matrix<float> weight;
};

Choice choose(const SigmoidChoice& options, const Matrix<float>& logits,
              const Vector<float>& correction_bias, std::int64_t choices) {
  Choice choice{Matrix<std::int32_t>("index", logits.extent(0), choices),
                Matrix<float>("weight", logits.extent(0), choices)};
  sigmoid_top_k_forward(Execution(), options, logits, correction_bias, choice.index, choice.weight);
  return choice;
}

void check_against_reference(const SigmoidChoice& options, const Matrix<float>& logits,
                             const Vector<float>& correction_bias, std::int64_t choices) {
  const Choice choice = choose(options, logits, correction_bias, choices);
  const auto index = copy_of(choice.index);
  const auto weight = copy_of(choice.weight);
  reference::sigmoid_top_k_forward(options, logits, correction_bias, index, weight);
  CHECK(distance(choice.index, index) == 0.0);
  CHECK(distance(choice.weight, weight) <= tolerance<float>());

  const auto dweight = random_matrix<float>(logits.extent(0), choices, 52);
  auto dlogits = random_matrix<float>(logits.extent(0), logits.extent(1), 53);
  const auto expected = copy_of(dlogits);
  sigmoid_top_k_backward(Execution(), options, logits, index, dweight, dlogits);
  reference::sigmoid_top_k_backward(options, logits, index, dweight, expected);
  CHECK(distance(dlogits, expected) <= 2 * tolerance<float>());
}

/// Choices by which experts are ordered, as the kernel computes them up to rounding.
std::vector<double> choices_of_row(const Matrix<float>& logits, const Vector<float>& bias, int t) {
  std::vector<double> choice;
  for (std::size_t e = 0; e < logits.extent(1); ++e) {
    choice.push_back(1.0 / (1.0 + std::exp(-static_cast<double>(logits(t, e)))) + bias(e));
  }
  return choice;
}

/// The subset of `count` of 0 .. values.size() - 1 with the largest sum, as bits, by trying all.
unsigned best_subset(const std::vector<double>& values, int count) {
  unsigned best = 0;
  double best_sum = -INFINITY;
  for (unsigned subset = 0; subset < 1u << values.size(); ++subset) {
    if (__builtin_popcount(subset) != count) continue;
    double sum = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += subset >> i & 1 ? values[i] : 0.0;
    if (sum > best_sum) best = subset, best_sum = sum;
  }
  return best;
}

/// Experts that DeepSeek-V3's rule chooses, by trying all subsets of groups and of experts.
std::set<std::int32_t> enumerated_choice(const SigmoidChoice& options,
                                         const std::vector<double>& choice, int choices) {
  const std::size_t size = choice.size() / options.num_groups;
  std::vector<double> group_scores;
  for (std::int64_t g = 0; g < options.num_groups; ++g) {
    const std::vector<double> members(&choice[g * size], &choice[g * size] + size);
    const unsigned pair = best_subset(members, size > 1 ? 2 : 1);
    double score = 0.0;
    for (std::size_t i = 0; i < size; ++i) score += pair >> i & 1 ? members[i] : 0.0;
    group_scores.push_back(score);
  }
  const unsigned kept = best_subset(group_scores, static_cast<int>(options.num_kept_groups));
  std::vector<std::int32_t> candidates;
  std::vector<double> values;
  for (std::size_t e = 0; e < choice.size(); ++e) {
    if ((kept >> (e / size) & 1) == 0) continue;
    candidates.push_back(static_cast<std::int32_t>(e));
    values.push_back(choice[e]);
  }
  const unsigned chosen = best_subset(values, choices);
  std::set<std::int32_t> experts;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (chosen >> i & 1) experts.insert(candidates[i]);
  }
  return experts;
}

}  // namespace

TEST_CASE("The choice by sigmoid scores and its gradient agree with their references") {
  struct Case {
    std::int64_t rows, experts, choices, groups, kept;
  };
  for (const Case& c : {Case{1, 1, 1, 1, 1},
                        {3, 4, 4, 2, 2},
                        {19, 32, 4, 8, 3},
                        {300, 21, 3, 7, 2},
                        {5, 256, 8, 8, 4},
                        {17, 9, 2, 9, 5},
                        {0, 8, 2, 2, 1}}) {
    for (const bool normalize : {true, false}) {
      CAPTURE(c.rows, c.experts, c.choices, c.groups, c.kept, normalize);
      const SigmoidChoice options{normalize, 2.5f, c.groups, c.kept};
      const auto logits = random_matrix<float>(c.rows, c.experts, 54, -6.0, 6.0);
      const auto bias = random_vector<float>(c.experts, 55, -1.0, 0.2);
      check_against_reference(options, logits, bias, c.choices);
      check_against_reference(options, logits, Vector<float>(), c.choices);
      Kokkos::deep_copy(logits, 0.25f);  // nothing but ties
      check_against_reference(options, logits, Vector<float>(), c.choices);
    }
  }
}

// The literals below were printed by transformers 5.23's DeepseekV3TopkRouter (in order of choice).
// With groups dropped by zero rather than -infinity, every row would choose otherwise.
TEST_CASE("With negative correction biases the choice is that of transformers") {
  const std::int64_t rows = 6, experts = 16;
  Matrix<float> logits("logits", rows, experts);
  Vector<float> bias("bias", experts);
  for (int e = 0; e < experts; ++e) {
    bias(e) = -static_cast<float>(e * 29 % 16) / 16.0f - 0.5f;
    for (int t = 0; t < rows; ++t) {
      logits(t, e) = static_cast<float>((t * 37 + e * 53) % 64 - 32) / 16.0f;
    }
  }
  const Choice choice = choose({true, 2.5f, 4, 2}, logits, bias, 4);
  const std::int32_t index[6][4] = {{15, 14, 13, 10}, {10, 5, 4, 9},   {15, 14, 10, 9},
                                    {5, 0, 4, 7},     {15, 10, 14, 9}, {0, 15, 14, 13}};
  const double weight[6][4] = {{0.514608383, 0.72186476, 0.905174613, 0.358352244},
                               {0.81671524, 0.713338375, 0.835559309, 0.134387225},
                               {0.613302231, 0.776386976, 0.464970201, 0.645340621},
                               {0.925815403, 0.813731074, 0.158915743, 0.601537704},
                               {0.621640265, 0.512702942, 0.722758532, 0.642898321},
                               {0.905184805, 0.351274252, 0.530358315, 0.713182688}};
  for (int t = 0; t < rows; ++t) {
    for (int j = 0; j < 4; ++j) {
      CAPTURE(t, j);
      CHECK(choice.index(t, j) == index[t][j]);
      CHECK(choice.weight(t, j) == Approx(weight[t][j]).epsilon(5e-7));
    }
  }
}

TEST_CASE("The choice is the best one of all that the rule allows") {
  const std::int64_t rows = 40, experts = 12;
  const auto logits = random_matrix<float>(rows, experts, 56, -3.0, 3.0);
  for (const double lowest_bias : {-0.1, -0.5, -2.0}) {
    const auto bias = random_vector<float>(experts, 57, lowest_bias, 0.0);
    for (const auto& [groups, kept] : {std::pair{1, 1}, {3, 1}, {4, 2}, {6, 3}, {12, 7}}) {
      const SigmoidChoice options{true, 1.0f, groups, kept};
      const Choice choice = choose(options, logits, bias, 4);
      for (int t = 0; t < rows; ++t) {
        CAPTURE(lowest_bias, groups, kept, t);
        const std::int32_t* first = &choice.index(t, 0);
        CHECK(std::set<std::int32_t>(first, first + 4) ==
              enumerated_choice(options, choices_of_row(logits, bias, t), 4));
      }
    }
  }
}

TEST_CASE("Of equal groups and experts the lower comes first, and a NaN shows in the weights") {
  Matrix<float> logits("logits", 2, 8);
  logits(1, 5) = NAN;
  const Choice choice = choose({true, 1.0f, 4, 2}, logits, Vector<float>(), 3);
  for (int j = 0; j < 3; ++j) CHECK(choice.index(0, j) == j);
  CHECK(choice.weight(0, 2) == Approx(1.0 / 3.0));
  const std::int32_t expected[3] = {5, 0, 1};
  for (int j = 0; j < 3; ++j) {
    CHECK(choice.index(1, j) == expected[j]);
    CHECK(std::isnan(choice.weight(1, j)));
  }
}

TEST_CASE("Scores that all vanish give vanishing weights, not a NaN") {
  Matrix<float> logits("logits", 1, 4), dlogits("dlogits", 1, 4), dweight("dweight", 1, 2);
  Kokkos::deep_copy(logits, -200.0f);
  Kokkos::deep_copy(dweight, 1.0f);
  const Choice choice = choose({}, logits, Vector<float>(), 2);
  CHECK(choice.weight(0, 0) == 0.0f);
  sigmoid_top_k_backward(Execution(), {}, logits, choice.index, dweight, dlogits);
  for (int e = 0; e < 4; ++e) CHECK(dlogits(0, e) == 0.0f);
}

TEST_CASE("The gradient of the sigmoid weights agrees with central differences") {
  const std::int64_t rows = 4, experts = 12, choices = 3;
  // Distances between choices exceed what a step changes, so that no choice flips.
  Matrix<float> logits("logits", rows, experts);
  const auto order = random_slots(rows, experts, 58);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits.data()[i] = 0.1f * static_cast<float>(order.data()[i] % 47) - 2.0f;
  }
  const auto dweight = random_matrix<float>(rows, choices, 59);
  for (const bool normalize : {true, false}) {
    const SigmoidChoice options{normalize, 2.5f, 4, 2};
    const Choice choice = choose(options, logits, Vector<float>(), choices);
    Matrix<float> dlogits("dlogits", rows, experts);
    reference::sigmoid_top_k_backward(options, logits, choice.index, dweight, dlogits);
    const auto loss = [&] {
      reference::sigmoid_top_k_forward(options, logits, Vector<float>(), choice.index,
                                       choice.weight);
      return weighted_sum(choice.weight, dweight);
    };
    CAPTURE(normalize);
    CHECK(distance(dlogits, central_differences(logits, loss)) < 1e-3);
  }
}
