// SPDX-License-Identifier: Apache-2.0
// Matrix products against plain loops, over shapes, strides, transpositions and element types. The
// same program also runs with oneDNN held to AVX2, where it has no bf16 product.
#include "kernel/gemm.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <latch>
#include <thread>
#include <vector>

#include "base/polling.hpp"
#include "gemm_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

const std::vector<Case> cases = {
    {1, 1, 1, 1},        {1, 4, 4, 4},         {1, 17, 5, 3},      {1, 1, 33, 65},
    {1, 65, 1, 33},      {1, 33, 65, 1},       {1, 64, 96, 128},   {1, 129, 257, 63},
    {1, 31, 47, 301, 5}, {1, 1, 7, 9, 3},      {1, 9, 1, 1, 4},    {3, 16, 24, 8},
    {3, 17, 9, 33, 2},   {2, 5, 7, 11, 3, 13}, {4, 1, 1, 1, 1, 1}, {5, 1, 13, 6, 2, 1},
    {1, 0, 4, 4},        {1, 4, 0, 4},         {1, 4, 4, 0},       {2, 3, 5, 0, 2, 1},
    {0, 4, 4, 4},        {1, 130, 90, 300, 1}, {2, 96, 32, 160, 0}};

template <class T, class TC>
void check(const Case& size, bool transpose_a, bool transpose_b, Into into) {
  const auto [batch, m, n, k, padding, batch_padding] = size;
  INFO(to_string(dtype_of<T>) << " to " << to_string(dtype_of<TC>) << ", batch " << batch << ", m "
                              << m << ", n " << n << ", k " << k << ", padding " << padding
                              << ", transposed " << transpose_a << transpose_b << ", accumulate "
                              << (into == Into::accumulate));
  Matrices<T> a(size, transpose_a ? k : m, transpose_a ? m : k, transpose_a, 1);
  Matrices<T> b(size, transpose_b ? n : k, transpose_b ? k : n, transpose_b, 2);
  Matrices<TC> c(size, m, n, false, 3);
  Matrices<TC> expected(size, m, n, false, 3);
  gemm_batched(Execution(), batch, input(a.first), a.batch_stride, input(b.first), b.batch_stride,
               c.first, c.batch_stride, into);
  for (std::int64_t i = 0; i < batch; ++i) {
    reference::gemm(input(a.matrix(i)), input(b.matrix(i)), expected.matrix(i), into);
  }
  const double rounding = std::is_same_v<TC, bf16> ? 0.04 : 1e-5;  // 2^-8 of the largest elements
  CHECK(largest_error(c.storage, expected.storage) < rounding);
}

template <class T, class TC>
void check_all() {
  for (const Case& size : cases) {
    for (const bool transpose_a : {false, true}) {
      for (const bool transpose_b : {false, true}) {
        check<T, TC>(size, transpose_a, transpose_b, Into::overwrite);
        check<T, TC>(size, transpose_a, transpose_b, Into::accumulate);
        check<T, TC>(size, transpose_a, transpose_b, Into::overwrite_far);
      }
    }
  }
}

}  // namespace

TEST_CASE("A product of f32 matrices is that of plain loops") { check_all<float, float>(); }

TEST_CASE("A product of bf16 matrices into f32 is that of plain loops") {
  check_all<bf16, float>();
}

TEST_CASE("A product of bf16 matrices into bf16 is that of plain loops") {
  check_all<bf16, bf16>();
}

TEMPLATE_TEST_CASE("A product with bias adds the bias to each row", "", float, bf16) {
  for (const auto& [m, n, k] :
       {std::array{1, 1, 1}, {33, 70, 40}, {37, 70, 512}, {5, 17, 1100}, {3, 4, 0}}) {
    const auto a = random_matrix<TestType>(m, k, 1), b = random_matrix<TestType>(k, n, 2);
    const auto bias = random_vector<TestType>(n, 3);
    const Matrix<float> wide("wide", m, n), expected("expected", m, n);
    const Matrix<TestType> narrow("narrow", m, n);
    const auto a_in = input(operand(a)), b_in = input(operand(b));
    gemm_with_bias<TestType>(Execution(), a_in, b_in, bias.data(), operand(wide));
    gemm_with_bias<TestType>(Execution(), a_in, b_in, bias.data(), operand(narrow));
    for (std::int64_t row = 0; row < m; ++row) {
      for (std::int64_t col = 0; col < n; ++col) expected(row, col) = bias(col);
    }
    reference::gemm(a_in, b_in, operand(expected), Into::accumulate);
    CHECK(distance(wide, expected) < 1e-5);
    CHECK(distance(narrow, expected) < (std::is_same_v<TestType, bf16> ? 0.01 : 1e-5));
    gemm_with_bias<TestType, float>(Execution(), a_in, b_in, nullptr, operand(wide));
    gemm(Execution(), a_in, b_in, operand(expected));
    CHECK(distance(wide, expected) == 0.0);
  }
}

TEST_CASE("A product of f32 matrices keeps all bits of f32") {
  const float above_one = 1.0f + 0x1p-23f;
  const Array<float> a(64 * 64, above_one);
  Array<float> b(64 * 64, 0.0f);
  for (int i = 0; i < 64; ++i) b[i * 64 + i] = 1.0f;
  Array<float> c(64 * 64, 0.0f);
  gemm(Execution(), Operand<const float>{a.data(), 64, 64, 64},
       Operand<const float>{b.data(), 64, 64, 64}, Operand<float>{c.data(), 64, 64, 64});
  CHECK(c == a);
}

#ifndef TESSERA_CUBLAS_DOUBLE  // on a device the host does not wait for it
TEMPLATE_TEST_CASE("A product polls what is in flight", "", float, bf16) {
  const auto a = random_matrix<TestType>(512, 256, 1), b = random_matrix<TestType>(256, 64, 2);
  const Matrix<float> c("c", 512, 64);
  int num_polls = 0;
  poll_until_false([&num_polls] { return ++num_polls < 1; });
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  gemm(Execution(), input(operand(a)), input(operand(b)), operand(c));
  CHECK(num_polls == 1);
}
#endif

TEST_CASE("A product may be one of interleaved column blocks") {
  // Heads side by side in one matrix: the batch stride is smaller than a matrix.
  constexpr std::int64_t heads = 3, rows = 10, cols = 4;
  const auto x = random_matrix<float>(rows, heads * cols, 5);
  const auto y = random_matrix<float>(rows, heads * cols, 6);
  const Operand<const float> x_head{x.data(), rows, cols, heads * cols};
  const Operand<const float> y_head{y.data(), rows, cols, heads * cols};
  Matrix<float> c("c", heads * rows, rows), expected("expected", heads * rows, rows);
  gemm_batched(Execution(), heads, x_head, cols, y_head.t(), cols,
               Operand<float>{c.data(), rows, rows, rows}, rows * rows);
  for (std::int64_t head = 0; head < heads; ++head) {
    const Operand<const float> x_one{x.data() + head * cols, rows, cols, heads * cols};
    const Operand<const float> y_one{y.data() + head * cols, rows, cols, heads * cols};
    reference::gemm(x_one, y_one.t(),
                    Operand<float>{expected.data() + head * rows * rows, rows, rows, rows});
  }
  CHECK(distance(c, expected) < 1e-5);
}

TEST_CASE("Small products of which one operand's matrices lie far apart") {
  // As in attention, where a window of one key gives one probability and one row of values.
  constexpr std::int64_t batch = 25, far = 198;
  const auto near_data = random_matrix<float>(batch, 64, 1);
  const auto far_data = random_matrix<float>(batch, far, 2);
  const Into into = GENERATE(Into::overwrite, Into::accumulate);
  const bool first_is_far = GENERATE(false, true), transposed = GENERATE(false, true);
  const std::int64_t m = GENERATE(1, 2, 5), n = GENERATE(1, 2, 6), k = GENERATE(1, 2, 5);
  INFO("m " << m << ", n " << n << ", k " << k << ", first far " << first_is_far << ", transposed "
            << transposed << ", accumulate " << (into == Into::accumulate));
  const std::int64_t a_stride = first_is_far ? far : m * k, b_stride = first_is_far ? k * n : far;
  Matrix<float> c("c", batch, m * n), expected("expected", batch, m * n);
  Kokkos::deep_copy(c, 1.0f);
  Kokkos::deep_copy(expected, 1.0f);
  const auto a = [&](std::int64_t i) {
    const float* data = (first_is_far ? far_data : near_data).data() + i * a_stride;
    return Operand<const float>{data, m, k, k};
  };
  const auto b = [&](std::int64_t i) {
    const float* data = (first_is_far ? near_data : far_data).data() + i * b_stride;
    return transposed ? Operand<const float>{data, n, k, k}.t()
                      : Operand<const float>{data, k, n, n};
  };
  gemm_batched(Execution(), batch, a(0), a_stride, b(0), b_stride,
               Operand<float>{c.data(), m, n, n}, m * n, into);
  for (std::int64_t i = 0; i < batch; ++i) {
    reference::gemm(a(i), b(i), Operand<float>{expected.data() + i * m * n, m, n, n}, into);
  }
  CHECK(distance(c, expected) < 1e-5);
}

TEST_CASE("NaN and infinity pass through a product") {
  Matrix<float> a("a", 2, 3), b("b", 3, 2), c("c", 2, 2);
  Kokkos::deep_copy(a, 1.0f);
  Kokkos::deep_copy(b, 1.0f);
  a(0, 1) = NAN;
  b(2, 1) = INFINITY;
  gemm(Execution(), input(operand(a)), input(operand(b)), operand(c));
  CHECK(std::isnan(c(0, 0)));
  CHECK(std::isnan(c(0, 1)));
  CHECK(c(1, 0) == 3.0f);
  CHECK(std::isinf(c(1, 1)));
}

TEST_CASE("More shapes than are kept in memory give right products") {
  for (std::int64_t m = 1; m <= 1100; ++m) {
    const Case size{1, m, 2, 3};
    Matrices<float> a(size, m, 3, false, 1), b(size, 3, 2, false, 2);
    Matrices<float> c(size, m, 2, false, 3), expected(size, m, 2, false, 3);
    gemm(Execution(), input(a.first), input(b.first), c.first);
    reference::gemm(input(a.first), input(b.first), expected.first);
    if (largest_error(c.storage, expected.storage) > 1e-5) FAIL_CHECK("wrong at m = " << m);
  }
}

TEST_CASE("Two threads multiply at the same time") {
  const Case size{1, 8, 8, 8};  // small: most of a call is where a shared primitive would break
  std::latch both_ready(2);
  const auto count_wrong = [&](std::uint32_t seed, int* num_wrong) {
    Matrices<float> a(size, 8, 8, false, seed), b(size, 8, 8, false, seed + 1);
    Matrices<float> c(size, 8, 8, false, 3), expected(size, 8, 8, false, 3);
    reference::gemm(input(a.first), input(b.first), expected.first);
    both_ready.arrive_and_wait();
    for (int i = 0; i < 100000; ++i) {
      c.storage[0] = 0.0f;
      gemm(Execution(), input(a.first), input(b.first), c.first);
      *num_wrong += std::abs(c.storage[0] - expected.storage[0]) > 1e-5f ? 1 : 0;
    }
  };
  int wrong_here = 0, wrong_there = 0;
  std::thread other(count_wrong, 20, &wrong_there);
  count_wrong(10, &wrong_here);
  other.join();
  CHECK(wrong_here == 0);
  CHECK(wrong_there == 0);
}
