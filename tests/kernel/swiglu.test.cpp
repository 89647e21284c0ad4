// SPDX-License-Identifier: Apache-2.0
// Both kinds of SwiGLU against their reference, and the reference against central differences, for
// the clamped one on both sides of each clamp.
#include "kernel/swiglu.hpp"

#include <catch2/catch.hpp>

#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

constexpr Activation kinds[] = {Activation::swiglu, Activation::clamped_swiglu};

template <class T>
void check_against_reference(Swiglu options, std::int64_t rows, std::int64_t inner,
                             std::int64_t experts) {
  const auto bias = random_matrix<T>(experts, 2 * inner, 41);
  const auto row_expert = random_indices(experts > 0 ? rows : 0, experts > 0 ? experts : 1, 42);
  const auto hidden = random_matrix<float>(rows, 2 * inner, 43, -12.0, 12.0);
  const auto hidden_expected = copy_of(hidden);
  Matrix<T> activated("activated", rows, inner), expected("expected", rows, inner);
  swiglu_forward<T>(Execution(), options, row_expert, bias, hidden, activated);
  reference::swiglu_forward<T>(options, row_expert, bias, hidden_expected, expected);
  CHECK(distance(hidden, hidden_expected) == 0.0);
  CHECK(distance(activated, expected) <= tolerance<T>());

  const auto dactivated = random_matrix<float>(rows, inner, 44);
  Matrix<T> dhidden("dhidden", rows, 2 * inner), dhidden_expected("dhidden", rows, 2 * inner);
  swiglu_backward<T>(Execution(), options, hidden, dactivated, dhidden);
  reference::swiglu_backward<T>(options, hidden, dactivated, dhidden_expected);
  CHECK(distance(dhidden, dhidden_expected) <= tolerance<T>());
  Matrix<T> again("again", rows, inner), dhidden_beside("dhidden", rows, 2 * inner);
  swiglu_backward<T>(Execution(), options, hidden, dactivated, dhidden_beside, again);
  CHECK(distance(again, expected) <= tolerance<T>());
  CHECK(distance(dhidden_beside, dhidden) <= tolerance<T>());
}

/// Largest distance between the reference's gradient and central differences.
double gradient_error(Swiglu options, const Matrix<float>& hidden, float step) {
  const std::int64_t rows = hidden.extent(0), inner = hidden.extent(1) / 2;
  const auto dactivated = random_matrix<float>(rows, inner, 46);
  Matrix<float> activated("activated", rows, inner), dhidden("dhidden", rows, 2 * inner);
  const auto loss = [&] {
    reference::swiglu_forward<float>(options, {}, {}, hidden, activated);
    return weighted_sum(activated, dactivated);
  };
  reference::swiglu_backward<float>(options, hidden, dactivated, dhidden);
  return distance(dhidden, central_differences(hidden, loss, step));
}

}  // namespace

TEST_CASE("Both kinds of SwiGLU agree with their reference, with and without bias") {
  for (const Activation kind : kinds) {
    for (const auto& [rows, inner] : {std::pair{1, 1}, {3, 17}, {65, 96}, {2, 515}, {0, 16}}) {
      for (const std::int64_t experts : {0, 1, 5}) {
        CAPTURE(static_cast<int>(kind), rows, inner, experts);
        check_against_reference<float>({.kind = kind}, rows, inner, experts);
        check_against_reference<bf16>({.kind = kind}, rows, inner, experts);
      }
    }
  }
}

TEST_CASE("SwiGLU is silu of the first half of the columns times the second half") {
  Matrix<float> hidden("hidden", 1, 4), activated("activated", 1, 2);
  const float values[4] = {2.0f, -1.0f, 3.0f, 0.5f};
  for (int c = 0; c < 4; ++c) hidden(0, c) = values[c];
  swiglu_forward<float>(Execution(), {.kind = Activation::swiglu}, {}, {}, hidden, activated);
  CHECK(activated(0, 0) == Approx(6.0 / (1.0 + std::exp(-2.0))).epsilon(1e-6));
  CHECK(activated(0, 1) == Approx(-0.5 / (1.0 + std::exp(1.0))).epsilon(1e-6));
}

TEST_CASE("The gradient of SwiGLU agrees with central differences") {
  const auto hidden = random_matrix<float>(9, 34, 45, -2.0, 2.0);
  CHECK(gradient_error({.kind = Activation::swiglu}, hidden, 1e-2f) < 1e-3);
}

TEST_CASE("The gradient of clamped SwiGLU agrees with central differences and is zero beyond") {
  const float step = 1e-2f;
  const auto hidden = random_matrix<float>(9, 34, 45, -2.0, 2.0);
  std::size_t num_clamped = 0;
  for (std::size_t i = 0; i < hidden.size(); ++i) {
    float& h = hidden.data()[i];
    if (std::abs(std::abs(h) - 1.0f) < 2 * step) h *= 1.1f;  // no difference across the kink
    num_clamped += h > 1.0f || (h < -1.0f && i % 2 == 1);
  }
  CHECK(num_clamped > 50);
  CHECK(gradient_error({Activation::clamped_swiglu, 1.702f, 1.0f}, hidden, step) < 1e-3);
}

TEST_CASE("Far from zero the clamped activation is finite and a NaN is kept") {
  Matrix<float> hidden("hidden", 1, 10), activated("activated", 1, 5);
  const float values[10] = {-1e30f, 1.0f, -60.0f, 1e30f, 1e30f, -1e30f, NAN, 1.0f, 1.0f, NAN};
  for (int c = 0; c < 10; ++c) hidden(0, c) = values[c];
  const Matrix<float> dactivated("dactivated", 1, 5), dhidden("dhidden", 1, 10);
  Kokkos::deep_copy(dactivated, 1.0f);
  swiglu_forward<float>(Execution(), {}, {}, {}, hidden, activated);
  swiglu_backward<float>(Execution(), {}, hidden, dactivated, dhidden);
  CHECK(std::abs(activated(0, 0)) < 1e-6f);
  CHECK(std::abs(activated(0, 1)) < 1e-30f);
  CHECK(activated(0, 2) == Approx(-42.0f));
  CHECK(std::isnan(activated(0, 3)));
  CHECK(std::isnan(activated(0, 4)));
  for (int c = 0; c < 6; ++c) CHECK(std::abs(dhidden(0, c)) < 10.0f);
  CHECK(dhidden(0, 4) == 0.0f);
  CHECK(dhidden(0, 5) == 0.0f);
}

TEST_CASE("Far from zero SwiGLU and its gradient are finite and a NaN is kept") {
  Matrix<float> hidden("hidden", 1, 8), activated("activated", 1, 4);
  const float values[8] = {-1e30f, 100.0f, NAN, 1.0f, 2.0f, 3.0f, 1.0f, NAN};
  for (int c = 0; c < 8; ++c) hidden(0, c) = values[c];
  const Matrix<float> dactivated("dactivated", 1, 4), dhidden("dhidden", 1, 8);
  Kokkos::deep_copy(dactivated, 1.0f);
  const Swiglu options{.kind = Activation::swiglu};
  swiglu_forward<float>(Execution(), options, {}, {}, hidden, activated);
  swiglu_backward<float>(Execution(), options, hidden, dactivated, dhidden);
  CHECK(std::abs(activated(0, 0)) < 1e-6f);
  CHECK(activated(0, 1) == 300.0f);
  CHECK(std::isnan(activated(0, 2)));
  CHECK(std::isnan(activated(0, 3)));
  CHECK(std::abs(dhidden(0, 0)) < 1e-6f);
  CHECK(dhidden(0, 1) == 3.0f);
  CHECK(dhidden(0, 5) == 100.0f);
}
