// SPDX-License-Identifier: Apache-2.0
// Cross-entropy, one team per row: maximum, exponentials and their sum, then the gradient. A row is
// read from memory once and stays in the second-level cache.
#include "kernel/cross_entropy.hpp"

#include <cmath>
#include <limits>

#include "base/contract.hpp"
#include "kernel/exponential.hpp"
#include "kernel/launch.hpp"
#include "kernel/ordered_sum.hpp"
#include "kernel/sum_exponentials.hpp"

namespace tessera::kernel {
namespace {

using Member = Team::member_type;

/// What a row's loss and gradient are made of. The target's exponential is kept apart from the
/// others': a confident row's gradient, softmax - 1, would cancel.
struct RowTotal {
  float maximum;
  double target;  ///< exp(logit - maximum) of the target
  double others;  ///< sum of it over the other classes

  KOKKOS_INLINE_FUNCTION double total() const { return target + others; }
};

/// The largest logit of a row; logits that are NaN may be passed over, they show in the sum.
KOKKOS_INLINE_FUNCTION float row_maximum(const Member& team, const float* logits,
                                         std::int64_t num_classes) {
  std::int32_t largest;
  Kokkos::parallel_reduce(
      Kokkos::TeamVectorRange(team, std::int64_t(0), num_classes),
      [=](const std::int64_t i, std::int32_t& running) {
        const std::int32_t ordered = ordered_bits(logits[i]);
        running = ordered > running ? ordered : running;
      },
      Kokkos::Max<std::int32_t>(largest));
  return from_ordered_bits(largest);
}

/// Sum of exp(logit - maximum) over [begin, end), which are kept in `kept` unless it is null. f32
/// within a block; f64 over blocks, because a vocabulary is long enough for f32 sums to lose three
/// digits. A template, so that the half for the other kind of memory is not compiled.
template <bool on_host = kernels_run_on_host>
KOKKOS_INLINE_FUNCTION double sum_of_exponentials(const Member& team, const float* logits,
                                                  std::int64_t begin, std::int64_t end,
                                                  float maximum, float* kept) {
  // Of one member of a team. On a host a team is a thread, on a GPU a few hundred.
  constexpr std::int64_t block = on_host ? 512 : 512 * 256;
  double sum = 0.0;
  for (std::int64_t first = begin; first < end; first += block) {
    const std::int64_t last = first + block < end ? first + block : end;
    if constexpr (on_host) {
      float passed[block];
      float* to = kept == nullptr ? passed : kept + first;
      sum += sum_exponentials(logits + first, last - first, maximum, to);
    } else {
      float block_sum = 0.0f;
      Kokkos::parallel_reduce(
          Kokkos::TeamVectorRange(team, first, last),
          [=](const std::int64_t i, float& running) {
            const float e = exp_nonpositive(logits[i] - maximum);
            if (kept != nullptr) kept[i] = e;
            running += e;
          },
          block_sum);
      sum += block_sum;
    }
  }
  return sum;
}

/// `kept` as above.
KOKKOS_INLINE_FUNCTION RowTotal row_total(const Member& team, const float* logits,
                                          std::int64_t num_classes, std::int64_t label,
                                          float* kept) {
  const float maximum = row_maximum(team, logits, num_classes);
  const double target = exp_nonpositive(logits[label] - maximum);
  const double below = sum_of_exponentials(team, logits, 0, label, maximum, kept);
  const double above = sum_of_exponentials(team, logits, label + 1, num_classes, maximum, kept);
  return {maximum, target, below + above};
}

KOKKOS_INLINE_FUNCTION double row_loss(const RowTotal& row, float target_logit) {
  return std::log(row.total()) + static_cast<double>(row.maximum - target_logit);
}

/// Through memcpy, because the floats and what replaces them lie in the same memory.
template <class T>
KOKKOS_INLINE_FUNCTION void put(float* row, std::int64_t i, float value) {
  const T narrow(value);
  memcpy(reinterpret_cast<char*>(row) + i * static_cast<std::int64_t>(sizeof(T)), &narrow,
         sizeof narrow);
}

/// row[i] T = row[i] f32 * factor, in place. A narrower element i lands on floats before i, so each
/// step takes as many floats as have gone before: what it writes, it does not read.
template <class T>
KOKKOS_INLINE_FUNCTION void scale_in_place(const Member& team, float* row, std::int64_t count,
                                           float factor) {
  if constexpr (std::is_same_v<T, float>) {
    Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), count),
                         [=](const std::int64_t i) { row[i] *= factor; });
  } else {
    Kokkos::single(Kokkos::PerTeam(team), [=]() { put<T>(row, 0, row[0] * factor); });
    for (std::int64_t first = 1; first < count; first *= 2) {
      const std::int64_t last = 2 * first < count ? 2 * first : count;
      team.team_barrier();
      Kokkos::parallel_for(Kokkos::TeamVectorRange(team, first, last),
                           [=](const std::int64_t i) { put<T>(row, i, row[i] * factor); });
    }
  }
}

/// Loss of a row whose logits become gradients.
template <class T>
KOKKOS_INLINE_FUNCTION double replace_row(const Member& team, float* row, std::int64_t num_classes,
                                          std::int64_t label, float scale) {
  const float target_logit = row[label];
  const RowTotal sums = row_total(team, row, num_classes, label, row);
  team.team_barrier();
  scale_in_place<T>(team, row, num_classes, static_cast<float>(scale / sums.total()));
  team.team_barrier();
  Kokkos::single(Kokkos::PerTeam(team), [=]() {
    put<T>(row, label, static_cast<float>(-scale * (sums.others / sums.total())));
  });
  return row_loss(sums, target_logit);
}

}  // namespace

double cross_entropy(const Execution& execution, Matrix<const float> logits,
                     Vector<const std::int64_t> target) {
  TESSERA_EXPECT(target.size() == logits.extent(0));
  const auto num_rows = static_cast<std::int64_t>(logits.extent(0));
  const auto num_classes = static_cast<std::int64_t>(logits.extent(1));
  if (num_rows == 0) return 0.0;
  const auto losses = new_vector<double>("row losses", num_rows);
  Kokkos::parallel_for(
      "cross_entropy", team_per_row(execution, num_rows, num_classes),
      KOKKOS_LAMBDA(const Member& team) {
        const float* row = logits.data() + team.league_rank() * num_classes;
        const std::int64_t label = target(team.league_rank());
        double loss = 0.0;
        if (label != ignored_label) {
          const RowTotal sums = row_total(team, row, num_classes, label, nullptr);
          loss = row_loss(sums, row[label]);
        }
        Kokkos::single(Kokkos::PerTeam(team), [=]() { losses(team.league_rank()) = loss; });
      });
  return ordered_sum(execution, losses);
}

template <class T>
double cross_entropy_gradient(const Execution& execution, Matrix<float> logits,
                              Vector<const std::int64_t> target, float scale) {
  TESSERA_EXPECT(target.size() == logits.extent(0));
  const auto num_rows = static_cast<std::int64_t>(logits.extent(0));
  const auto num_classes = static_cast<std::int64_t>(logits.extent(1));
  if (num_rows == 0) return 0.0;
  const auto losses = new_vector<double>("row losses", num_rows);
  Kokkos::parallel_for(
      "cross_entropy_gradient", team_per_row(execution, num_rows, num_classes),
      KOKKOS_LAMBDA(const Member& team) {
        float* row = logits.data() + team.league_rank() * num_classes;
        const std::int64_t label = target(team.league_rank());
        double loss = 0.0;
        if (label == ignored_label) {
          Kokkos::parallel_for(Kokkos::TeamVectorRange(team, std::int64_t(0), num_classes),
                               [=](const std::int64_t i) { row[i] = 0.0f; });  // of T, too
        } else {
          loss = replace_row<T>(team, row, num_classes, label, scale);
        }
        Kokkos::single(Kokkos::PerTeam(team), [=]() { losses(team.league_rank()) = loss; });
      });
  return ordered_sum(execution, losses);
}

RowSums RowSums::rows(std::int64_t begin, std::int64_t end) const {
  const auto part = Kokkos::make_pair(begin, end);
  return {Kokkos::subview(maximum, part), Kokkos::subview(others, part),
          Kokkos::subview(target, part)};
}

RowSums new_row_sums(const Execution& execution, std::int64_t rows) {
  const RowSums sums{new_vector<float>("row maximum", rows), new_vector<double>("row sum", rows),
                     new_vector<float>("target logit", rows)};
  if (rows == 0) return sums;
  // Finite, so that the first difference of maxima is no NaN; its exponential is 0.
  Kokkos::deep_copy(execution, sums.maximum, -std::numeric_limits<float>::max());
  Kokkos::deep_copy(execution, sums.others, 0.0);
  Kokkos::deep_copy(execution, sums.target, 0.0f);
  return sums;
}

void add_classes(const Execution& execution, Matrix<const float> logits,
                 Vector<const std::int64_t> target, std::int64_t first, RowSums sums) {
  TESSERA_EXPECT(target.size() == logits.extent(0) && sums.maximum.size() == logits.extent(0));
  const auto num_classes = static_cast<std::int64_t>(logits.extent(1));
  if (logits.size() == 0) return;
  Kokkos::parallel_for(
      "cross_entropy_classes", Team(execution, static_cast<int>(logits.extent(0)), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Member& team) {
        const std::int64_t r = team.league_rank();
        if (target(r) == ignored_label) return;
        const float* row = logits.data() + r * num_classes;
        const std::int64_t label = target(r) - first;
        const bool has_label = label >= 0 && label < num_classes;
        const std::int64_t before = has_label ? label : num_classes;
        const float here = row_maximum(team, row, num_classes), old = sums.maximum(r);
        const float maximum = here > old ? here : old;
        double sum = sum_of_exponentials(team, row, 0, before, maximum, nullptr);
        if (has_label) {
          sum += sum_of_exponentials(team, row, label + 1, num_classes, maximum, nullptr);
        }
        team.team_barrier();
        Kokkos::single(Kokkos::PerTeam(team), [&]() {
          const double lead = static_cast<double>(old) - static_cast<double>(maximum);
          sums.others(r) = sums.others(r) * std::exp(lead) + sum;
          sums.maximum(r) = maximum;
          if (has_label) sums.target(r) = row[label];
        });
      });
}

double cross_entropy(const Execution& execution, RowSums sums, Vector<const std::int64_t> target) {
  const auto losses = new_vector<double>("losses of rows", target.size());
  Kokkos::parallel_for(
      "cross_entropy_sums", Range(execution, 0, static_cast<std::int64_t>(target.size())),
      KOKKOS_LAMBDA(const std::int64_t r) {
        const RowTotal row{sums.maximum(r), exp_nonpositive(sums.target(r) - sums.maximum(r)),
                           sums.others(r)};
        losses(r) = target(r) == ignored_label ? 0.0 : row_loss(row, sums.target(r));
      });
  return ordered_sum(execution, losses);
}

template <class T>
void classes_gradient(const Execution& execution, Matrix<float> logits,
                      Vector<const std::int64_t> target, std::int64_t first, float scale,
                      RowSums sums) {
  TESSERA_EXPECT(target.size() == logits.extent(0) && sums.maximum.size() == logits.extent(0));
  const auto num_classes = static_cast<std::int64_t>(logits.extent(1));
  if (logits.size() == 0) return;
  Kokkos::parallel_for(
      "cross_entropy_classes_gradient",
      Team(execution, static_cast<int>(logits.extent(0)), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Member& team) {
        const std::int64_t r = team.league_rank();
        float* row = logits.data() + r * num_classes;
        const auto each = Kokkos::TeamVectorRange(team, std::int64_t(0), num_classes);
        if (target(r) == ignored_label) {
          Kokkos::parallel_for(each, [=](const std::int64_t i) { row[i] = 0.0f; });  // of T, too
          return;
        }
        const float maximum = sums.maximum(r);
        const double others = sums.others(r);
        const double total = others + exp_nonpositive(sums.target(r) - maximum);
        Kokkos::parallel_for(
            each, [=](const std::int64_t i) { row[i] = exp_nonpositive(row[i] - maximum); });
        team.team_barrier();
        scale_in_place<T>(team, row, num_classes, static_cast<float>(scale / total));
        team.team_barrier();
        const std::int64_t label = target(r) - first;
        if (label < 0 || label >= num_classes) return;
        Kokkos::single(Kokkos::PerTeam(team), [=]() {
          put<T>(row, label, static_cast<float>(-scale * (others / total)));
        });
      });
}

template void classes_gradient<float>(const Execution&, Matrix<float>, Vector<const std::int64_t>,
                                      std::int64_t, float, RowSums);
template void classes_gradient<bf16>(const Execution&, Matrix<float>, Vector<const std::int64_t>,
                                     std::int64_t, float, RowSums);
template double cross_entropy_gradient<float>(const Execution&, Matrix<float>,
                                              Vector<const std::int64_t>, float);
template double cross_entropy_gradient<bf16>(const Execution&, Matrix<float>,
                                             Vector<const std::int64_t>, float);

}  // namespace tessera::kernel
