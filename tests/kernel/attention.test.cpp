// SPDX-License-Identifier: Apache-2.0
// Blocked attention against the reference, over lengths around and beyond the blocks, windows, head
// groups and sinks; the reference's gradients against central differences.
#include "kernel/attention.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

AttentionShape shape_of(std::int64_t sequences, std::int64_t length, std::int64_t kv_heads,
                        std::int64_t group, std::int64_t head_size, std::int64_t value_size,
                        std::int64_t window) {
  return {.sequences = sequences,
          .length = length,
          .query_heads = kv_heads * group,
          .kv_heads = kv_heads,
          .head_size = head_size,
          .value_size = value_size,
          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_size))),
          .window = window};
}

const std::vector<AttentionShape> shapes = {
    shape_of(2, 7, 2, 2, 8, 8, 0),        // below a block
    shape_of(2, 300, 1, 8, 16, 16, 128),  // beyond a block, with gpt-oss' window and group
    shape_of(1, 300, 2, 1, 8, 12, 0),     // group of one; values longer than keys
    shape_of(2, 135, 3, 1, 24, 16, 0),    // keys longer than values, as in latent attention
    shape_of(1, 1, 2, 4, 8, 8, 0),        // one position
    shape_of(3, 1, 1, 1, 4, 4, 3),        // one position, window beyond the length
    shape_of(1, 140, 1, 2, 4, 4, 1),      // each sees itself alone
    shape_of(1, 140, 3, 2, 4, 4, 1000),   // window beyond the length
    shape_of(2, 129, 1, 3, 5, 7, 50),     // one position beyond a block, odd sizes
    shape_of(1, 70, 1, 64, 4, 4, 20),     // many heads per group: shorter blocks of queries
    shape_of(1, 600, 1, 1, 4, 4, 300),    // a window of several key blocks
    shape_of(9, 257, 2, 4, 4, 4, 0),      // more pairs than fit one batch of bounded scratch
    shape_of(1, 63, 1, 4, 8, 8, 0),       // one position less than a block of queries,
    shape_of(1, 64, 1, 4, 8, 8, 0),       // as many,
    shape_of(1, 65, 1, 4, 8, 8, 0),       // one more
    shape_of(1, 255, 2, 5, 8, 4, 0),      // about a block of keys, groups that divide no block
    shape_of(1, 256, 1, 6, 4, 8, 0),      //
    shape_of(1, 257, 1, 7, 8, 4, 0),      //
    shape_of(1, 150, 1, 3, 8, 8, 31),     // windows about the vectors that key blocks begin on
    shape_of(1, 150, 1, 4, 8, 8, 32),     //
    shape_of(1, 150, 1, 8, 8, 8, 33),     //
    shape_of(1, 500, 1, 2, 4, 12, 127),   // and about a block of queries
    shape_of(2, 300, 1, 4, 12, 4, 129),   //
    shape_of(1, 520, 1, 1, 4, 4, 512),    // a window of whole key blocks
};

/// All arrays of one forward and backward pass.
template <class T>
struct Arrays {
  Vector<T> q, k, v, dout;
  Vector<float> out, sinks, lse, dq, dk, dv, dsinks;

  explicit Arrays(const AttentionShape& s, double spread = 1.0) {
    const std::int64_t tokens = s.sequences * s.length;
    q = random_vector<T>(tokens * s.query_heads * s.head_size, 1, -2 * spread, 2 * spread);
    k = random_vector<T>(tokens * s.kv_heads * s.head_size, 2, -2 * spread, 2 * spread);
    v = random_vector<T>(tokens * s.kv_heads * s.value_size, 3);
    dout = random_vector<T>(tokens * s.query_heads * s.value_size, 4);
    sinks = random_vector<float>(s.query_heads, 5, -1.0, 2.0);
    out = random_vector<float>(dout.size(), 6);
    lse = random_vector<float>(tokens * s.query_heads, 7);
    dq = random_vector<float>(q.size(), 8);
    dk = random_vector<float>(k.size(), 9);
    dv = random_vector<float>(v.size(), 10);
    dsinks = random_vector<float>(s.query_heads, 11);
  }
};

template <class T>
void forward(const AttentionShape& shape, const Arrays<T>& x, bool with_sinks) {
  attention_forward<T>(Execution(), shape, x.q.data(), x.k.data(), x.v.data(),
                       with_sinks ? x.sinks.data() : nullptr, x.out.data(), x.lse.data());
}
template <class T>
void backward(const AttentionShape& shape, const Arrays<T>& x, bool with_sinks) {
  attention_backward<T>(Execution(), shape, x.q.data(), x.k.data(), x.v.data(),
                        with_sinks ? x.sinks.data() : nullptr, x.out.data(), x.lse.data(),
                        x.dout.data(), x.dq.data(), x.dk.data(), x.dv.data(),
                        with_sinks ? x.dsinks.data() : nullptr);
}
template <class T>
void reference_forward(const AttentionShape& shape, const Arrays<T>& x, bool with_sinks) {
  reference::attention_forward<T>(shape, x.q.data(), x.k.data(), x.v.data(),
                                  with_sinks ? x.sinks.data() : nullptr, x.out.data(),
                                  x.lse.data());
}
template <class T>
void reference_backward(const AttentionShape& shape, const Arrays<T>& x, bool with_sinks) {
  reference::attention_backward<T>(shape, x.q.data(), x.k.data(), x.v.data(),
                                   with_sinks ? x.sinks.data() : nullptr, x.out.data(),
                                   x.lse.data(), x.dout.data(), x.dq.data(), x.dk.data(),
                                   x.dv.data(), with_sinks ? x.dsinks.data() : nullptr);
}

/// ||a - b|| / ||b||, or ||a - b|| where b is small against 1.
template <class View>
double relative_l2(const View& a, const View& b) {
  double error = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double x = static_cast<float>(a(i)), y = static_cast<float>(b(i));
    error += (x - y) * (x - y);
    norm += y * y;
  }
  return std::sqrt(error / std::fmax(norm, 1.0));
}

template <class T>
void check_against_reference(const AttentionShape& shape, bool with_sinks, double spread = 1.0) {
  INFO(to_string(dtype_of<T>) << ", B " << shape.sequences << ", S " << shape.length << ", Hq "
                              << shape.query_heads << ", Hkv " << shape.kv_heads << ", D "
                              << shape.head_size << ", Dv " << shape.value_size << ", window "
                              << shape.window << ", sinks " << with_sinks);
  const Arrays<T> x(shape, spread), expected(shape, spread);
  const double f32_limit = 2e-6 * spread * spread;  // scores are rounded relative to their size
  const double limit = std::is_same_v<T, float> ? f32_limit : 6e-3;
  forward(shape, x, with_sinks);
  reference_forward(shape, expected, with_sinks);
  CHECK(relative_l2(x.out, expected.out) < limit);
  CHECK(relative_l2(x.lse, expected.lse) < f32_limit);

  Kokkos::deep_copy(x.out, expected.out);
  Kokkos::deep_copy(x.lse, expected.lse);
  backward(shape, x, with_sinks);
  reference_backward(shape, expected, with_sinks);
  CHECK(relative_l2(x.dq, expected.dq) < limit);
  CHECK(relative_l2(x.dk, expected.dk) < limit);
  CHECK(relative_l2(x.dv, expected.dv) < limit);
  CHECK(relative_l2(x.dsinks, expected.dsinks) < f32_limit);
}

}  // namespace

TEST_CASE("Attention in blocks is that of plain loops in f32") {
  for (const AttentionShape& shape : shapes) {
    check_against_reference<float>(shape, false);
    check_against_reference<float>(shape, true);
  }
}

TEST_CASE("Attention in blocks is that of plain loops in bf16") {
  for (const AttentionShape& shape : shapes) {
    check_against_reference<bf16>(shape, false);
    check_against_reference<bf16>(shape, true);
  }
}

TEST_CASE("Attention of a rank without sequences does nothing") {
  const AttentionShape shape = shape_of(0, 16, 2, 2, 8, 8, 0);
  const Arrays<float> x(shape);
  const auto dsinks = copy_of(x.dsinks);
  forward(shape, x, true);
  backward(shape, x, true);
  CHECK(distance(x.dsinks, dsinks) == 0.0);
}

TEST_CASE("Attention keeps its precision at scores of a thousand") {
  check_against_reference<float>(shape_of(1, 300, 1, 2, 16, 16, 0), true, 16.0);
  check_against_reference<float>(shape_of(1, 300, 1, 2, 16, 16, 128), false, 16.0);
}

TEST_CASE("A sink of minus infinity is no sink, and a large one takes everything") {
  const AttentionShape shape = shape_of(1, 40, 2, 2, 8, 8, 16);
  const Arrays<float> with(shape), without(shape);
  Kokkos::deep_copy(with.sinks, -INFINITY);
  forward(shape, with, true);
  forward(shape, without, false);
  CHECK(distance(with.out, without.out) == 0.0);
  CHECK(distance(with.lse, without.lse) == 0.0);

  Kokkos::deep_copy(with.sinks, 1e4f);
  forward(shape, with, true);
  CHECK(root_mean_square(with.out) == 0.0);
  CHECK(with.lse(0) == 1e4f);
}

TEST_CASE("NaN in a query shows in that query's output alone") {
  const AttentionShape shape = shape_of(1, 300, 1, 2, 8, 8, 0);
  const Arrays<float> x(shape);
  const std::int64_t row = 150 * 2 + 1;  // position 150, second head
  x.q(row * 8 + 3) = NAN;
  forward(shape, x, true);
  CHECK(std::isnan(x.out(row * 8)));
  CHECK(std::isnan(x.lse(row)));
  CHECK(std::isfinite(x.out((row - 1) * 8)));
  CHECK(std::isfinite(x.out((row + 1) * 8)));
}

TEST_CASE("The reference's attention gradients are central differences of its outputs") {
  for (const std::int64_t window : {0, 3}) {
    for (const bool with_sinks : {false, true}) {
      const AttentionShape shape = shape_of(2, 6, 2, 2, 4, 3, window);
      const Arrays<float> x(shape);
      const auto loss = [&] {
        reference_forward(shape, x, with_sinks);
        return weighted_sum(x.out, x.dout);
      };
      loss();
      Kokkos::deep_copy(x.dsinks, 0.0f);
      reference_backward(shape, x, with_sinks);
      CHECK(relative_l2(x.dq, central_differences(x.q, loss)) < 1e-3);
      CHECK(relative_l2(x.dk, central_differences(x.k, loss)) < 1e-3);
      CHECK(relative_l2(x.dv, central_differences(x.v, loss)) < 1e-3);
      if (with_sinks) {
        CHECK(relative_l2(x.dsinks, central_differences(x.sinks, loss)) < 1e-3);
      }
    }
  }
}
