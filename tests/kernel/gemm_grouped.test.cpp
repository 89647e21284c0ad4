// SPDX-License-Identifier: Apache-2.0
// Groups of products against plain loops. The same program also runs over the double of cuBLAS.
#include <catch2/catch.hpp>
#include <memory>

#include "base/error.hpp"
#include "gemm_data.hpp"
#ifdef TESSERA_CUBLAS_DOUBLE
#include "kernel/gemm_cublas.hpp"
#include "support/cublas_double.hpp"
#endif

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

/// Products of several sizes with operands in both orientations, and their expected results.
template <class T, class TC>
struct Group {
  std::vector<std::unique_ptr<Matrices<T>>> operands;
  std::vector<std::unique_ptr<Matrices<TC>>> results, expected;
  std::vector<Array<T>> biases;
  std::vector<Product<T, TC>> products;

  void add(std::int64_t m, std::int64_t n, std::int64_t k, bool ta, bool tb, bool has_bias,
           std::int64_t padding = 0) {
    const Case size{1, m, n, k, padding};
    const auto seed = static_cast<std::uint32_t>(7 * products.size());
    auto& a = *operands.emplace_back(
        std::make_unique<Matrices<T>>(size, ta ? k : m, ta ? m : k, ta, seed + 1));
    auto& b = *operands.emplace_back(
        std::make_unique<Matrices<T>>(size, tb ? n : k, tb ? k : n, tb, seed + 2));
    auto& c = *results.emplace_back(std::make_unique<Matrices<TC>>(size, m, n, false, seed + 3));
    expected.push_back(std::make_unique<Matrices<TC>>(size, m, n, false, seed + 3));
    Array<T>& bias = biases.emplace_back();
    for (std::int64_t i = 0; i < n; ++i) bias.push_back(T(0.25f * static_cast<float>(i % 5)));
    products.push_back({input(a.first), input(b.first), c.first, has_bias ? bias.data() : nullptr});
  }

  void check(Into into) {
    gemm_grouped<T, TC>(Execution(), products, into);
    for (std::size_t i = 0; i < products.size(); ++i) {
      const Product<T, TC>& p = products[i];
      Operand<TC> c = expected[i]->first;
      if (p.bias == nullptr) {
        reference::gemm(p.a, p.b, c, into);
      } else {
        const Matrix<float> sums("sums", c.rows, c.cols);
        reference::gemm(p.a, p.b, operand(sums));
        for (std::int64_t row = 0; row < c.rows; ++row) {
          for (std::int64_t col = 0; col < c.cols; ++col) {
            c.data[row * c.stride + col] = TC(sums(row, col) + static_cast<float>(p.bias[col]));
          }
        }
      }
      INFO("product " << i << " of " << products.size());
      CHECK(largest_error(results[i]->storage, expected[i]->storage) <
            (std::is_same_v<TC, bf16> ? 0.04 : 1e-5));
    }
  }
};

template <class T, class TC>
Group<T, TC> many_sizes(bool has_bias) {
  Group<T, TC> group;
  for (const auto& [ta, tb] : {std::pair{false, false}, {false, true}, {true, false}}) {
    group.add(5, 16, 24, ta, tb, has_bias);
    group.add(1, 16, 24, ta, tb, false);
    if (!ta) group.products.back().a.stride = 1;  // one row needs none
    group.add(0, 16, 24, ta, tb, has_bias);
    group.add(17, 9, 0, ta, tb, has_bias);
    group.add(33, 7, 11, ta, tb, has_bias, 3);
  }
  return group;
}

template <class T, class TC>
void check_all() {
  many_sizes<T, TC>(false).check(Into::overwrite);
  many_sizes<T, TC>(false).check(Into::accumulate);
  many_sizes<T, TC>(true).check(Into::overwrite);
}

}  // namespace

TEST_CASE("A group of products is that of plain loops one by one") {
  check_all<float, float>();
  check_all<bf16, float>();
  check_all<bf16, bf16>();
  Group<float, float>().check(Into::overwrite);
}

#ifdef TESSERA_CUBLAS_DOUBLE
using namespace tessera::test;

TEST_CASE("cuBLAS gets one call for a group of one element type, and a call per product else") {
  const auto calls = [](auto group) {
    clear_cublas_records();
    group.check(Into::overwrite);
    return cublas_records();
  };
  Group<bf16, bf16> narrow;
  for (const std::int64_t rows : {3, 1, 40}) narrow.add(rows, 16, 24, false, true, true);
  const auto one = calls(std::move(narrow));
  REQUIRE(one.size() == 1);
  CHECK(one[0].call == "grouped");
  CHECK(one[0].products == 3);

  Group<bf16, float> wide;
  for (const std::int64_t rows : {3, 1, 40}) wide.add(rows, 16, 24, false, true, false);
  CHECK(calls(std::move(wide)).size() == 3);

  Group<bf16, bf16> unaligned;  // 24 elements are 48 bytes: operands must begin at multiples of 16
  for (const std::int64_t rows : {3, 2}) unaligned.add(rows, 16, 24, false, false, false, 1);
  unaligned.products[1].a.data += 1;
  unaligned.products[1].a.rows = unaligned.products[1].c.rows = 1;
  clear_cublas_records();
  gemm_grouped<bf16, bf16>(Execution(), unaligned.products);
  CHECK(cublas_records().size() == 2);
}

TEST_CASE("cuBLAS multiplies f32 as f32 on one handle for each stream, until Kokkos ends") {
  many_sizes<float, float>(true).check(Into::overwrite);
  CHECK(num_cublas_handles() == 1);
  CHECK_FALSE(cublas_lost_precision());
}

TEST_CASE("What cuBLAS refuses is an error with its words") {
  Group<float, float> group;
  group.add(3, 4, 5, false, false, false);
  fail_next_cublas_call();
  try {
    gemm_grouped<float, float>(Execution(), group.products);
    FAIL_CHECK("no error");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::memory);
    CHECK(std::string(error.what()) == "cublasGemmStridedBatchedEx failed: out of memory");
  }
  Product<float, float> wrong = group.products[0];
  wrong.a.stride = 2;  // narrower than its rows
  CHECK_THROWS_WITH(
      (cublas::gemm_batched(Execution(), 1, wrong.a, 0, wrong.b, 0, wrong.c, 0, Into::overwrite)),
      "cublasGemmStridedBatchedEx failed: an argument has no valid value");
}
#endif
