// SPDX-License-Identifier: Apache-2.0
// The packed product with each instruction set against plain loops. AMX runs on the processor where
// it has it, else its machine code is emulated.
#include "kernel/gemm_packed.hpp"

#include <catch2/catch.hpp>
#include <functional>
#include <optional>
#include <string>

#include "gemm_data.hpp"
#include "support/amx_emulator.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

using packed::Backend;

/// Calls body for each instruction set that can be tested here.
void for_each_backend(const std::function<void(const Backend&)>& body) {
  for (const Backend* const backend : packed::backends()) {
    INFO(backend->name);
    std::optional<tessera::test::AmxEmulator> emulator;
    if (!backend->is_available()) {
      // The rest of the AMX product is AVX-512.
      const bool can_emulate = std::string(backend->option) == "amx" &&
                               tessera::test::AmxEmulator::is_possible() &&
                               packed::avx512_bf16()->is_available();
      if (!can_emulate) continue;
      emulator.emplace();
    }
    body(*backend);
  }
}

packed::Lines rows_of(const Operand<const bf16>& a) {
  return {a.data, a.op_rows(), a.op_cols(), a.stride, a.transposed};
}
packed::Lines columns_of(const Operand<const bf16>& b) {
  return {b.data, b.op_cols(), b.op_rows(), b.stride, !b.transposed};
}

template <class TC>
void multiply(const Backend& backend, const Operand<const bf16>& a, const Operand<const bf16>& b,
              const Operand<TC>& c, Into into) {
  packed::product(backend, rows_of(a), columns_of(b),
                  {c.data, c.stride, std::is_same_v<TC, bf16>, into == Into::accumulate, nullptr,
                   into == Into::overwrite_far});
}

template <class TC>
void check(const Backend& backend, const Case& size, bool transpose_a, bool transpose_b,
           Into into) {
  const auto [batch, m, n, k, padding, batch_padding] = size;
  Matrices<bf16> a(size, transpose_a ? k : m, transpose_a ? m : k, transpose_a, 1);
  Matrices<bf16> b(size, transpose_b ? n : k, transpose_b ? k : n, transpose_b, 2);
  Matrices<TC> c(size, m, n, false, 3), expected(size, m, n, false, 3);
  multiply<TC>(backend, input(a.first), input(b.first), c.first, into);
  reference::gemm(input(a.first), input(b.first), expected.first, into);
  const double rounding = std::is_same_v<TC, bf16> ? 0.04 : 1e-5;  // 2^-8 of the largest elements
  if (largest_error(c.storage, expected.storage) < rounding) return;
  FAIL_CHECK(to_string(dtype_of<TC>) << ", m " << m << ", n " << n << ", k " << k << ", padding "
                                     << padding << ", transposed " << transpose_a << transpose_b
                                     << ", into " << static_cast<int>(into));
}

void check_all_kinds(const Backend& backend, const Case& size) {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      for (const Into into : {Into::overwrite, Into::accumulate, Into::overwrite_far}) {
        check<float>(backend, size, transpose_a, transpose_b, into);
        check<bf16>(backend, size, transpose_a, transpose_b, into);
      }
    }
  }
}

}  // namespace

TEST_CASE("Packed products at the edges of tiles, panels and strips are those of plain loops") {
  for_each_backend([](const Backend& backend) {
    for (const std::int64_t m : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65}) {
      for (const std::int64_t n : {1, 15, 16, 17, 31, 32, 33, 80}) {
        for (const std::int64_t k : {1, 2, 31, 33, 64}) {
          check_all_kinds(backend, {1, m, n, k, (m + n + k) % 3});
        }
      }
    }
  });
}

TEST_CASE(
    "Packed products of several blocks of k, of rows and of columns are those of plain loops") {
  for_each_backend([](const Backend& backend) {
    check_all_kinds(backend, {1, 33, 40, 513});
    check_all_kinds(backend, {1, 17, 270, 1100, 1});
    check_all_kinds(backend, {1, 45, 70, 1088, 2});
    check<float>(backend, {1, 2060, 20, 520}, true, false, Into::overwrite);
    check<bf16>(backend, {1, 1030, 300, 1030}, false, true, Into::overwrite);
  });
}

TEST_CASE("A packed product with a very long k is that of plain loops") {
  for_each_backend([](const Backend& backend) { check_all_kinds(backend, {1, 5, 35, 8200, 1}); });
}

TEST_CASE("A row of a packed product has the same bits whatever rows are beside it") {
  for_each_backend([](const Backend& backend) {
    const Case size{1, 45, 50, 1100};
    Matrices<bf16> a(size, 45, 1100, false, 1), b(size, 1100, 50, false, 2);
    Matrices<float> all(size, 45, 50, false, 3);
    multiply<float>(backend, input(a.first), input(b.first), all.first, Into::overwrite);
    for (std::int64_t row = 0; row < 45; ++row) {
      std::vector<float> alone(50);
      multiply<float>(backend, {a.first.data + row * a.first.stride, 1, 1100, 1100}, input(b.first),
                      {alone.data(), 1, 50, 50}, Into::overwrite);
      CHECK(std::equal(alone.begin(), alone.end(), all.first.data + row * all.first.stride));
    }
  });
}

TEST_CASE("Rows have the same bits whether few are multiplied with a weight, or many") {
  for_each_backend([](const Backend& backend) {
    constexpr std::int64_t few = 40, many = 700, n = 70, k = 512;
    const auto a = random_matrix<bf16>(many, k, 1), b = random_matrix<bf16>(n, k, 2);
    const Matrix<float> all("all", many, n), alone("alone", few, n);
    multiply<float>(backend, input(operand(a)), input(operand(b).t()), operand(all),
                    Into::overwrite);
    multiply<float>(backend, {a.data(), few, k, k}, input(operand(b).t()), operand(alone),
                    Into::overwrite);
    CHECK(std::equal(alone.data(), alone.data() + alone.size(), all.data()));
  });
}

TEST_CASE("A product that bypasses the caches keeps what lies beside C") {
  for_each_backend([](const Backend& backend) {
    constexpr std::int64_t m = 20, n = 48, k = 40, stride = 64;
    const auto a = random_matrix<bf16>(m, k, 1), b = random_matrix<bf16>(k, n, 2);
    const Matrix<float> near("near", m, stride), far("far", m, stride);
    Kokkos::deep_copy(near, 7.0f);
    Kokkos::deep_copy(far, 7.0f);
    multiply<float>(backend, input(operand(a)), input(operand(b)),
                    Operand<float>{near.data(), m, n, stride}, Into::overwrite);
    multiply<float>(backend, input(operand(a)), input(operand(b)),
                    Operand<float>{far.data(), m, n, stride}, Into::overwrite_far);
    CHECK(std::equal(near.data(), near.data() + near.size(), far.data()));
  });
}

TEST_CASE("NaN and infinity pass through a packed product, and stay in their row and column") {
  for_each_backend([](const Backend& backend) {
    Matrix<bf16> a("a", 20, 40), b("b", 40, 36);
    Matrix<float> c("c", 20, 36);
    Kokkos::deep_copy(a, bf16(1.0f));
    Kokkos::deep_copy(b, bf16(1.0f));
    a(3, 39) = bf16(NAN);
    b(38, 35) = bf16(INFINITY);
    multiply<float>(backend, input(operand(a)), input(operand(b)), operand(c), Into::overwrite);
    for (std::int64_t row = 0; row < 20; ++row) {
      for (std::int64_t col = 0; col < 36; ++col) {
        const bool is_right = row == 3    ? std::isnan(c(row, col))
                              : col == 35 ? std::isinf(c(row, col))
                                          : c(row, col) == 40.0f;
        if (!is_right) FAIL_CHECK("wrong at " << row << ", " << col << ": " << c(row, col));
      }
    }
  });
}

TEST_CASE("Without AMX its instructions are emulated") {
  for (const Backend* const backend : packed::backends()) {
    if (std::string(backend->option) != "amx" || backend->is_available()) continue;
    if (!packed::avx512_bf16()->is_available() || !tessera::test::AmxEmulator::is_possible())
      continue;
    const long before = tessera::test::num_emulated_instructions();
    const tessera::test::AmxEmulator emulator;
    check<float>(*backend, {1, 4, 4, 4}, false, false, Into::overwrite);
    CHECK(tessera::test::num_emulated_instructions() > before);
  }
}
