// SPDX-License-Identifier: Apache-2.0
// Cross-entropy against its reference, its special labels and extreme logits, its gradient against
// central differences.
#include "kernel/cross_entropy.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "kernel/exponential.hpp"
#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

/// Labels in [0, num_classes), every third one ignored.
Vector<std::int64_t> some_labels(std::int64_t rows, std::int64_t num_classes) {
  Vector<std::int64_t> target("target", rows);
  for (std::int64_t i = 0; i < rows; ++i) {
    target(i) = i % 3 == 2 ? ignored_label : (i * 7919 + 3) % num_classes;
  }
  return target;
}

/// dlogits, out of the logits' memory.
template <class T>
Matrix<T> unpacked(const Matrix<float>& logits) {
  const Operand<const T> gradient = dlogits_in<T>(logits);
  const Matrix<T> dlogits("dlogits", logits.extent(0), logits.extent(1));
  for (std::int64_t r = 0; r < gradient.rows; ++r) {
    for (std::int64_t c = 0; c < gradient.cols; ++c) {
      dlogits(r, c) = gradient.data[r * gradient.stride + c];
    }
  }
  return dlogits;
}

template <class T>
void check_against_reference(const Matrix<float>& given, const Vector<std::int64_t>& target) {
  const float scale = 0.37f;
  const auto logits = copy_of(given);
  const Matrix<T> expected("expected", logits.extent(0), logits.extent(1));
  const double expected_loss = reference::cross_entropy<T>(logits, target, scale, expected);
  const double loss = cross_entropy(Execution(), logits, target);
  CHECK(loss == Approx(expected_loss).epsilon(1e-6).margin(1e-6));
  CHECK(distance(logits, given) == 0.0);
  CHECK(cross_entropy_gradient<T>(Execution(), logits, target, scale) == loss);
  CHECK(distance(unpacked<T>(logits), expected) <= tolerance<T>());
}

}  // namespace

TEST_CASE("Cross-entropy is that of plain loops") {
  for (const std::int64_t num_classes : {1, 2, 3, 17, 64, 511, 513, 1031, 5000}) {
    const auto logits = random_matrix<float>(13, num_classes, 1, -8.0, 8.0);
    const auto target = some_labels(13, num_classes);
    check_against_reference<float>(logits, target);
    check_against_reference<bf16>(logits, target);
  }
}

/// Classes in chunks of `width`, the last perhaps shorter, in any order.
template <class T>
void check_chunks(const Matrix<float>& logits, const Vector<std::int64_t>& target,
                  std::int64_t width) {
  const float scale = 0.37f;
  const std::int64_t rows = logits.extent(0), num_classes = logits.extent(1);
  const Matrix<T> expected("expected", rows, num_classes);
  const double expected_loss = reference::cross_entropy<T>(logits, target, scale, expected);
  const auto chunk_of = [&](std::int64_t first) {
    const std::int64_t count = std::min(width, num_classes - first);
    const Matrix<float> chunk("chunk", rows, count);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < count; ++c) chunk(r, c) = logits(r, first + c);
    }
    return chunk;
  };
  const RowSums sums = new_row_sums(Execution(), rows);
  const std::int64_t last = (num_classes - 1) / width * width;
  for (std::int64_t first = last; first >= 0; first -= width) {
    add_classes(Execution(), chunk_of(first), target, first, sums);
  }
  const double loss = cross_entropy(Execution(), sums, target);
  CHECK(loss == Approx(expected_loss).epsilon(1e-6).margin(1e-6));
  const Matrix<T> gradient("gradient", rows, num_classes);
  for (std::int64_t first = 0; first < num_classes; first += width) {
    const auto chunk = chunk_of(first);
    classes_gradient<T>(Execution(), chunk, target, first, scale, sums);
    const auto part = unpacked<T>(chunk);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < part.extent(1); ++c) gradient(r, first + c) = part(r, c);
    }
  }
  CHECK(distance(gradient, expected) <= tolerance<T>());
}

TEST_CASE("Cross-entropy in chunks of classes is that of all at once") {
  for (const std::int64_t num_classes : {1, 3, 64, 513, 1031}) {
    for (const double largest : {1.0, 8.0, 80.0}) {
      const auto logits = random_matrix<float>(13, num_classes, 1, -largest, largest);
      const auto target = some_labels(13, num_classes);
      for (const std::int64_t width : {1, 64, 500, 2000}) {
        if (num_classes / width > 100) continue;
        CAPTURE(num_classes, largest, width);
        check_chunks<float>(logits, target, width);
        check_chunks<bf16>(logits, target, width);
      }
    }
  }
}

TEST_CASE("A sure row's gradient in chunks does not cancel") {
  const Matrix<float> logits("logits", 1, 128);
  logits(0, 70) = 40.0f;
  const Vector<std::int64_t> target("target", 1);
  target(0) = 70;
  const RowSums sums = new_row_sums(Execution(), 1);
  const Matrix<float> low(logits.data(), 1, 64), high(logits.data() + 64, 1, 64);
  add_classes(Execution(), low, target, 0, sums);
  add_classes(Execution(), high, target, 64, sums);
  classes_gradient<float>(Execution(), high, target, 64, 1.0f, sums);
  CHECK(static_cast<double>(logits(0, 70)) == Approx(-127.0 * std::exp(-40.0)).epsilon(1e-5));
}

TEST_CASE("Cross-entropy of no rows is zero") {
  const Matrix<float> none("none", 0, 100);
  CHECK(cross_entropy(Execution(), none, Vector<std::int64_t>()) == 0.0);
  CHECK(cross_entropy_gradient<bf16>(Execution(), none, Vector<std::int64_t>(), 1.0f) == 0.0);
}

TEST_CASE("Ignored rows have no loss and exactly zero gradients, whatever their logits") {
  const auto logits = random_matrix<float>(2, 50, 1);
  logits(1, 7) = NAN;
  Vector<std::int64_t> target("target", 2);
  Kokkos::deep_copy(target, ignored_label);
  CHECK(cross_entropy(Execution(), logits, target) == 0.0);
  CHECK(cross_entropy_gradient<bf16>(Execution(), logits, target, 1.0f) == 0.0);
  CHECK(root_mean_square(unpacked<float>(logits)) == 0.0);
}

TEST_CASE("Extreme logits neither overflow nor lose the loss") {
  const Matrix<float> logits("logits", 4, 20);
  Kokkos::deep_copy(logits, -1e30f);
  for (int i = 0; i < 20; ++i) logits(0, i) = 3e38f;  // all alike
  logits(1, 4) = 1e30f;                               // the target wins
  logits(2, 5) = 200.0f;                              // another wins by far
  for (int i = 0; i < 20; ++i) logits(3, i) = -INFINITY;
  logits(3, 4) = 2.0f;  // all others masked out
  Vector<std::int64_t> target("target", 4);
  Kokkos::deep_copy(target, 4);
  logits(2, 4) = 100.0f;
  const double loss = cross_entropy_gradient<float>(Execution(), logits, target, 1.0f);
  const Matrix<float>& dlogits = logits;
  CHECK(loss == Approx(std::log(20.0) + 100.0));
  CHECK(dlogits(0, 0) == Approx(0.05));
  CHECK(dlogits(0, 4) == Approx(-0.95));
  CHECK(dlogits(1, 4) == 0.0f);
  CHECK(dlogits(2, 4) == Approx(-1.0));
  CHECK(dlogits(2, 5) == Approx(1.0));
  CHECK(dlogits(3, 4) == 0.0f);
  CHECK(dlogits(3, 5) == 0.0f);
}

TEST_CASE("NaN in a row's logits shows in the loss and in the gradient") {
  for (const float sign : {1.0f, -1.0f}) {
    const auto logits = random_matrix<float>(1, 100, 1);
    logits(0, 50) = std::copysign(NAN, sign);
    const Vector<std::int64_t> target("target", 1);
    CHECK(std::isnan(cross_entropy(Execution(), logits, target)));
    CHECK(std::isnan(cross_entropy_gradient<bf16>(Execution(), logits, target, 1.0f)));
    CHECK(std::isnan(static_cast<float>(unpacked<bf16>(logits)(0, 3))));
  }
}

TEST_CASE("A confident row keeps the digits of its small gradient") {
  const Matrix<float> logits("logits", 1, 3);
  logits(0, 1) = 14.0f;
  Vector<std::int64_t> target("target", 1);
  target(0) = 1;
  const Matrix<float> expected("expected", 1, 3);
  reference::cross_entropy<float>(logits, target, 1.0f, expected);
  cross_entropy_gradient<float>(Execution(), logits, target, 1.0f);
  CHECK(logits(0, 1) == Approx(expected(0, 1)).epsilon(1e-5));
}

TEST_CASE("The reference's cross-entropy gradient is a central difference of its loss") {
  const auto logits = random_matrix<float>(4, 7, 1, -2.0, 2.0);
  const auto target = some_labels(4, 7);
  const Matrix<float> dlogits("dlogits", 4, 7);
  reference::cross_entropy<float>(logits, target, 0.5f, dlogits);
  const auto loss = [&] {
    return 0.5 * reference::cross_entropy<float>(logits, target, 0.5f, Matrix<float>());
  };
  CHECK(distance(dlogits, central_differences(logits, loss)) < 1e-4);
}

TEST_CASE("The vectorised exponential is exact to rounding, zero far below, and passes NaN on") {
  for (float x = 0.001f; x > -86.9f; x -= 0.0137f) {
    const double expected = std::exp(static_cast<double>(x));
    const double limit = std::abs(x) * 0x1p-24 + 0x1p-23;
    if (std::abs(exp_nonpositive(x) / expected - 1.0) > limit) FAIL_CHECK("wrong at " << x);
  }
  CHECK(exp_nonpositive(0.0f) == 1.0f);
  CHECK(exp_nonpositive(-87.5f) == 0.0f);
  CHECK(exp_nonpositive(-INFINITY) == 0.0f);
  CHECK(std::isnan(exp_nonpositive(NAN)));
  CHECK(std::isnan(exp_nonpositive(-NAN)));
}
