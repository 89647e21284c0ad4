// SPDX-License-Identifier: Apache-2.0
// Row operations against their references, with repetitions, empty inputs and bf16 rounding.
#include "kernel/rows.hpp"

#include <catch2/catch.hpp>

#include "kernel/addressed_rows.hpp"
#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

const std::vector<std::pair<std::int64_t, std::int64_t>> sizes = {{1, 1},     {3, 17},   {129, 64},
                                                                  {300, 515}, {5, 1031}, {0, 9}};

template <class T>
void check_bias_and_sums(std::int64_t rows, std::int64_t columns) {
  const auto biased = random_matrix<float>(rows, columns, 1);
  const auto expected = copy_of(biased);
  const auto bias = random_matrix<T>(3, columns, 2);
  const auto row_expert = random_indices(rows, 3, 3);
  add_row_bias<T>(Execution(), row_expert, bias, biased);
  reference::add_row_bias<T>(row_expert, bias, expected);
  CHECK(distance(biased, expected) == 0.0);
  add_row_bias<T>(Execution(), row_expert, Matrix<T>(), biased);
  CHECK(distance(biased, expected) == 0.0);

  const auto x = random_matrix<T>(rows, columns, 5);
  const auto sum = random_vector<float>(columns, 4);
  const auto again = copy_of(sum);
  const auto sum_expected = copy_of(sum);
  add_column_sums<T>(Execution(), x, sum);
  add_column_sums<T>(Execution(), x, again);
  reference::add_column_sums<T>(x, sum_expected);
  CHECK(distance(sum, sum_expected) <= tolerance<float>());
  CHECK(distance(sum, again) == 0.0);
}

template <class TS, class TD>
void check_gather(std::int64_t rows, std::int64_t columns) {
  const auto source = random_matrix<TS>(7, columns, 5);
  const auto index = random_indices(rows, 7, 6);
  Matrix<TD> destination("destination", rows, columns), expected("expected", rows, columns);
  gather_rows<TS, TD>(Execution(), source, index, destination);
  reference::gather_rows<TS, TD>(source, index, expected);
  CHECK(distance(destination, expected) == 0.0);
}

template <class T>
void check_scatter(std::int64_t rows, std::int64_t columns) {
  const auto source = random_matrix<T>(rows, columns, 7);
  const auto slot = random_slots(rows, 1, 8);
  const Vector<std::int32_t> index(slot.data(), rows);
  const auto destination = random_matrix<T>(rows + 2, columns, 9);
  const auto expected = copy_of(destination);
  scatter_rows<T>(Execution(), source, index, destination);
  reference::scatter_rows<T>(source, index, expected);
  CHECK(distance(destination, expected) == 0.0);
}

template <class T>
void check_combine(std::int64_t tokens, std::int64_t columns, std::int64_t choices) {
  const auto rows = random_matrix<T>(tokens * choices, columns, 11);
  const auto slot = random_slots(tokens, choices, 12);
  const auto weight = random_matrix<float>(tokens, choices, 13, 0.0, 1.0);
  const auto y = random_matrix<float>(tokens, columns, 14);
  const auto y_expected = copy_of(y);
  const Matrix<float> sum("sum", tokens, columns);
  const Matrix<T> kept("kept", tokens * choices, columns);
  const auto addresses = addresses_of<const T>(Execution(), rows);
  combine_rows<T>(Execution(), addresses, slot, weight, y, sum, kept);
  combine_rows<T>(Execution(), addresses, slot, weight, y, y, Matrix<T>());
  reference::combine_rows<T>(rows, slot, weight, y_expected);
  CHECK(distance(y, y_expected) <= tolerance<float>());
  CHECK(distance(sum, y) == 0.0);
  CHECK(distance(kept, rows) == 0.0);
  gather_rows<T>(Execution(), addresses, kept);
  CHECK(distance(kept, rows) == 0.0);
  sum_rows<T>(Execution(), addresses, slot, y);
  reference::sum_rows<T>(rows, slot, y_expected);
  CHECK(distance(y, y_expected) <= tolerance<float>());

  Matrix<T> drows("drows", tokens * choices, columns);
  Matrix<float> dweight("dweight", tokens, choices);
  const auto drows_expected = copy_of(drows);
  const auto dweight_expected = copy_of(dweight);
  combine_rows_backward<T>(Execution(), y, rows, slot, weight, addresses_of<T>(Execution(), drows),
                           dweight);
  reference::combine_rows_backward<T>(y, rows, slot, weight, drows_expected, dweight_expected);
  CHECK(distance(drows, drows_expected) == 0.0);
  CHECK(distance(dweight, dweight_expected) <= tolerance<float>());
}

}  // namespace

TEST_CASE("Row operations agree with their references for odd sizes") {
  for (const auto& [rows, columns] : sizes) {
    CAPTURE(rows, columns);
    check_bias_and_sums<float>(rows, columns);
    check_bias_and_sums<bf16>(rows, columns);
    check_gather<float, float>(rows, columns);
    check_gather<float, bf16>(rows, columns);
    check_gather<bf16, float>(rows, columns);
    check_gather<bf16, bf16>(rows, columns);
    check_scatter<float>(rows, columns);
    check_scatter<bf16>(rows, columns);
    for (const std::int64_t choices : {1, 4}) {
      check_combine<float>(rows, columns, choices);
      check_combine<bf16>(rows, columns, choices);
    }
  }
}

TEST_CASE("Scattering with repetitions adds up in the order of the rows") {
  for (const auto& [rows, columns] : sizes) {
    const auto source = random_matrix<float>(rows, columns, 21);
    const auto index = random_indices(rows, 4, 22);
    const auto destination = random_matrix<float>(4, columns, 23);
    const auto expected = copy_of(destination);
    scatter_add_rows(Execution(), source, index, 2, 0, destination);
    reference::scatter_add_rows(source, index, 2, 0, expected);
    CHECK(distance(destination, expected) == 0.0);
  }
}

template <class T>
void check_chunks(std::int64_t rows, std::int64_t columns) {
  const auto table = random_matrix<T>(7, columns, 25);
  const auto dx = random_matrix<float>(rows, columns, 26);
  const auto index = random_indices(rows, 7, 27);
  const auto gathered = random_matrix<float>(rows, columns, 28);
  const auto gradient = random_matrix<float>(7, columns, 29);
  const auto whole = copy_of(gathered), expected = copy_of(gathered), sums = copy_of(gradient);
  reference::gather_rows<T, float>(table, index, whole);
  reference::scatter_add_rows(dx, index, 5, 0, sums);
  for (const std::int64_t first : {0, 3, 6}) {
    const std::int64_t count = std::min<std::int64_t>(3, 7 - first);
    const Matrix<const T> chunk(table.data() + first * columns, count, columns);
    gather_rows_within<T>(Execution(), chunk, first, index, gathered);
    reference::gather_rows_within<T>(chunk, first, index, expected);
    CHECK(distance(gathered, expected) == 0.0);
    scatter_add_rows(Execution(), dx, index, 5, first,
                     Matrix<float>(gradient.data() + first * columns, count, columns));
  }
  CHECK(distance(gathered, whole) == 0.0);
  CHECK(distance(gradient, sums) == 0.0);
}

TEST_CASE("An embedding in chunks gives what the whole one gives") {
  for (const auto& [rows, columns] : sizes) {
    CAPTURE(rows, columns);
    check_chunks<float>(rows, columns);
    check_chunks<bf16>(rows, columns);
  }
}

TEST_CASE("The gradient of combine agrees with central differences") {
  auto rows = random_matrix<float>(12, 5, 31);
  auto weight = random_matrix<float>(4, 3, 32, 0.0, 1.0);
  const auto slot = random_slots(4, 3, 33);
  const auto dy = random_matrix<float>(4, 5, 34);
  const auto loss = [&] {
    const Matrix<float> y("y", 4, 5);
    reference::combine_rows<float>(rows, slot, weight, y);
    return weighted_sum(y, dy);
  };
  Matrix<float> drows("drows", 12, 5), dweight("dweight", 4, 3);
  reference::combine_rows_backward<float>(dy, rows, slot, weight, drows, dweight);
  CHECK(distance(drows, central_differences(rows, loss)) < 1e-4);
  CHECK(distance(dweight, central_differences(weight, loss)) < 1e-4);
}

TEST_CASE("Conversion rounds to nearest even and back exactly") {
  Vector<float> source("source", 4), back("back", 4);
  Vector<bf16> rounded("rounded", 4), same("same", 4);
  const float values[4] = {1.00390625f, 1.01171875f, -3.0f, INFINITY};  // two halfway cases
  for (int i = 0; i < 4; ++i) source(i) = values[i];
  convert<float, bf16>(Execution(), source, rounded);
  convert<bf16, bf16>(Execution(), rounded, same);
  convert<bf16, float>(Execution(), same, back);
  CHECK(back(0) == 1.0f);
  CHECK(back(1) == 1.015625f);
  CHECK(back(2) == -3.0f);
  CHECK(back(3) == INFINITY);
  convert<float, float>(Execution(), Vector<float>(), Vector<float>());
  add(Execution(), source, back);
  CHECK(back(2) == -6.0f);
  add(Execution(), Vector<float>(), Vector<float>());
}

TEST_CASE("A bias is added to each row and an empty one is none") {
  const auto x = random_matrix<float>(5, 7, 41);
  const auto before = copy_of(x);
  const auto bias = random_vector<bf16>(7, 42);
  add_bias<float>(Execution(), Vector<float>(), x);
  CHECK(distance(x, before) == 0.0);
  add_bias<bf16>(Execution(), bias, x);
  for (int r = 0; r < 5; ++r) CHECK(x(r, 6) == before(r, 6) + static_cast<float>(bias(6)));
  add_bias<bf16>(Execution(), bias, Matrix<float>("empty", 0, 7));
}

TEST_CASE("Clamping and its gradient agree with their references, also in place") {
  for (const auto& [rows, columns] : sizes) {
    CAPTURE(rows, columns);
    const auto x = random_matrix<float>(rows, columns, 43, -3.0, 3.0);
    const auto y = copy_of(x), expected = copy_of(x);
    clamp(Execution(), 1.5f, y, y);
    reference::clamp(1.5f, x, expected);
    CHECK(distance(y, expected) == 0.0);
    const auto dx = random_matrix<float>(rows, columns, 44);
    const auto dx_expected = copy_of(dx);
    clamp_backward(Execution(), 1.5f, x, dx);
    reference::clamp_backward(1.5f, x, dx_expected);
    CHECK(distance(dx, dx_expected) == 0.0);
  }
}

TEST_CASE("A clamp lets NaN through, and the gradient at its limits") {
  Matrix<float> x("x", 1, 5), y("y", 1, 5), dx("dx", 1, 5);
  const float values[5] = {NAN, 2.0f, -2.0f, INFINITY, -2.5f};
  for (int c = 0; c < 5; ++c) x(0, c) = values[c];
  Kokkos::deep_copy(dx, 7.0f);
  clamp(Execution(), 2.0f, x, y);
  clamp_backward(Execution(), 2.0f, x, dx);
  CHECK(std::isnan(y(0, 0)));
  const float clamped[5] = {0.0f, 2.0f, -2.0f, 2.0f, -2.0f};
  for (int c = 1; c < 5; ++c) CHECK(y(0, c) == clamped[c]);
  const float gradient[5] = {7.0f, 7.0f, 7.0f, 0.0f, 0.0f};
  for (int c = 0; c < 5; ++c) CHECK(dx(0, c) == gradient[c]);
}

TEST_CASE("The gradient of a clamp agrees with central differences") {
  const auto x = random_matrix<float>(7, 9, 45, -3.0, 3.0);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::abs(std::abs(x.data()[i]) - 1.5f) < 0.02f) x.data()[i] *= 1.1f;  // not at the kink
  }
  const auto dx = random_matrix<float>(7, 9, 46);
  const auto dy = copy_of(dx), y = copy_of(x);
  const auto loss = [&] {
    reference::clamp(1.5f, x, y);
    return weighted_sum(y, dy);
  };
  reference::clamp_backward(1.5f, x, dx);
  CHECK(distance(dx, central_differences(x, loss)) < 1e-3);
}

TEST_CASE("The sum of squares is an f64 sum and lets NaN and infinity through") {
  const auto x = random_vector<float>(10007, 51, -1e20, 1e20);
  const double expected = weighted_sum(x, x);
  CHECK(sum_of_squares(Execution(), x) == Approx(expected).epsilon(1e-13));
  CHECK(sum_of_squares(Execution(), Vector<float>()) == 0.0);
  x(4711) = INFINITY;
  CHECK(sum_of_squares(Execution(), x) == INFINITY);
  x(17) = NAN;
  CHECK(std::isnan(sum_of_squares(Execution(), x)));
}
