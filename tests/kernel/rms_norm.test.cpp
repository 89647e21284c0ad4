// SPDX-License-Identifier: Apache-2.0
// RMSNorm against its plain-loop reference and the reference against central differences.
#include "kernel/rms_norm.hpp"

#include <catch2/catch.hpp>

#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

constexpr float epsilon = 1e-5f;

template <class T, class TY>
void check_forward(std::int64_t rows, std::int64_t columns) {
  const auto x = random_matrix<float>(rows, columns, 1, -3.0, 3.0);
  const auto weight = random_vector<T>(columns, 2, 0.5, 1.5);
  Matrix<TY> y("y", rows, columns), y_expected("y", rows, columns);
  Vector<float> rstd("rstd", rows), rstd_expected("rstd", rows);
  rms_norm_forward<T, TY>(Execution(), x, weight, epsilon, y, rstd);
  reference::rms_norm_forward<T, TY>(x, weight, epsilon, y_expected, rstd_expected);
  CHECK(distance(y, y_expected) <= tolerance<TY>());
  CHECK(distance(rstd, rstd_expected) <= tolerance<float>());
}

template <class T>
void check_forward_into_both(std::int64_t rows, std::int64_t columns) {
  const auto x = random_matrix<float>(rows, columns, 1, -3.0, 3.0);
  const auto weight = random_vector<T>(columns, 2, 0.5, 1.5);
  Matrix<float> y("y", rows, columns), y_alone("y", rows, columns);
  Matrix<T> rounded("rounded", rows, columns), rounded_alone("rounded", rows, columns);
  Vector<float> rstd("rstd", rows);
  rms_norm_forward<T>(Execution(), x, weight, epsilon, y, rounded, rstd);
  rms_norm_forward<T, float>(Execution(), x, weight, epsilon, y_alone, rstd);
  rms_norm_forward<T, T>(Execution(), x, weight, epsilon, rounded_alone, rstd);
  CHECK(distance(y, y_alone) == 0.0);
  CHECK(distance(rounded, rounded_alone) == 0.0);
}

template <class T>
void check_backward(std::int64_t rows, std::int64_t columns) {
  const auto x = random_matrix<float>(rows, columns, 3, -3.0, 3.0);
  const auto dy = random_matrix<float>(rows, columns, 4);
  const auto weight = random_vector<T>(columns, 5, 0.5, 1.5);
  const auto rstd = random_vector<float>(rows, 6, 0.5, 1.0);
  const auto dx = random_matrix<float>(rows, columns, 7);
  const auto dweight = random_vector<float>(columns, 8);
  const auto dx_expected = copy_of(dx);
  const auto dweight_expected = copy_of(dweight);
  rms_norm_backward<T>(Execution(), dy, x, weight, rstd, dx, dweight);
  reference::rms_norm_backward<T>(dy, x, weight, rstd, dx_expected, dweight_expected);
  CHECK(distance(dx, dx_expected) <= tolerance<float>());
  CHECK(distance(dweight, dweight_expected) <= tolerance<float>());
}

}  // namespace

TEST_CASE("RMSNorm agrees with its reference for odd sizes and every element type") {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {3, 17}, {5, 96}, {300, 129}, {7, 1031}}) {
    CAPTURE(rows, columns);
    check_forward<float, float>(rows, columns);
    check_forward<float, bf16>(rows, columns);
    check_forward<bf16, float>(rows, columns);
    check_forward<bf16, bf16>(rows, columns);
    check_forward_into_both<float>(rows, columns);
    check_forward_into_both<bf16>(rows, columns);
    check_backward<float>(rows, columns);
    check_backward<bf16>(rows, columns);
  }
}

TEST_CASE("RMSNorm of no row leaves the weight gradient alone") {
  check_forward<float, bf16>(0, 33);
  check_backward<float>(0, 33);
}

TEST_CASE("RMSNorm's gradient agrees with central differences") {
  const std::int64_t rows = 3, columns = 7;
  auto x = random_matrix<float>(rows, columns, 11);
  auto weight = random_vector<float>(columns, 12, 0.5, 1.5);
  const auto dy = random_matrix<float>(rows, columns, 13);
  Matrix<float> y("y", rows, columns), dx("dx", rows, columns);
  Vector<float> rstd("rstd", rows), dweight("dweight", columns);
  const auto loss = [&] {
    reference::rms_norm_forward<float, float>(x, weight, epsilon, y, rstd);
    return weighted_sum(y, dy);
  };
  loss();
  reference::rms_norm_backward<float>(dy, x, weight, rstd, dx, dweight);
  CHECK(distance(dx, central_differences(x, loss, 1e-3f)) < 1e-3);
  CHECK(distance(dweight, central_differences(weight, loss)) < 1e-4);
}

TEST_CASE("A NaN in a row of RMSNorm stays in that row") {
  const auto x = random_matrix<float>(2, 40, 21);
  x(0, 5) = NAN;
  Matrix<float> y("y", 2, 40);
  Vector<float> rstd("rstd", 2);
  rms_norm_forward<float, float>(Execution(), x, random_vector<float>(40, 22), epsilon, y, rstd);
  CHECK(std::isnan(y(0, 39)));
  CHECK(std::isfinite(y(1, 39)));
}
