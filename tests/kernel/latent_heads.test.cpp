// SPDX-License-Identifier: Apache-2.0
// Heads of latent attention against their reference, by hand, and their gradients against central
// differences.
#include "kernel/latent_heads.hpp"

#include <catch2/catch.hpp>

#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

struct Arrays {
  Arrays(const LatentHeads& heads, std::int64_t length, std::int64_t rank)
      : shape(heads),
        tokens(heads.sequences * length),
        projected(random_matrix<float>(tokens, heads.heads * heads.key_size(), 61)),
        up(random_matrix<float>(tokens, heads.heads * (heads.nope_size + heads.value_size), 62)),
        compressed(random_matrix<float>(tokens, rank + heads.rope_size, 63)),
        dkey(random_vector<float>(tokens * heads.heads * heads.key_size(), 64)),
        dvalue(random_vector<float>(tokens * heads.heads * heads.value_size, 65)) {
    RopeFrequencies frequencies = default_frequencies(100.0, heads.rope_size);
    frequencies.attention_factor = 1.25;
    table = make_rope_table(frequencies, length + 2);
  }

  LatentHeads shape;
  std::int64_t tokens;
  Matrix<float> projected, up, compressed;
  Vector<float> dkey, dvalue;  ///< dkey serves for dq as well
  RopeTable table;
};

template <class T>
void check_query(const Arrays& x) {
  Vector<T> q("q", x.dkey.size()), expected("q", x.dkey.size());
  latent_query_forward<T>(Execution(), x.table, x.shape, x.projected, q.data());
  reference::latent_query_forward<T>(x.table, x.shape, x.projected, expected.data());
  CHECK(distance(q, expected) <= tolerance<T>());
  Matrix<T> dprojected("dprojected", x.tokens, x.projected.extent(1));
  const auto dprojected_expected = copy_of(dprojected);
  latent_query_backward<T>(Execution(), x.table, x.shape, x.dkey.data(), dprojected);
  reference::latent_query_backward<T>(x.table, x.shape, x.dkey.data(), dprojected_expected);
  CHECK(distance(dprojected, dprojected_expected) <= tolerance<T>());
}

template <class T>
void check_key_value(const Arrays& x) {
  Vector<T> k("k", x.dkey.size()), k_expected("k", x.dkey.size());
  Vector<T> v("v", x.dvalue.size()), v_expected("v", x.dvalue.size());
  latent_key_value_forward<T>(Execution(), x.table, x.shape, x.up, x.compressed, k.data(),
                              v.data());
  reference::latent_key_value_forward<T>(x.table, x.shape, x.up, x.compressed, k_expected.data(),
                                         v_expected.data());
  CHECK(distance(k, k_expected) <= tolerance<T>());
  CHECK(distance(v, v_expected) == 0.0);
  Matrix<T> dup("dup", x.tokens, x.up.extent(1)), dup_expected("dup", x.tokens, x.up.extent(1));
  const auto dcompressed = copy_of(x.compressed), dcompressed_expected = copy_of(x.compressed);
  latent_key_value_backward<T>(Execution(), x.table, x.shape, x.dkey.data(), x.dvalue.data(), dup,
                               dcompressed);
  reference::latent_key_value_backward<T>(x.table, x.shape, x.dkey.data(), x.dvalue.data(),
                                          dup_expected, dcompressed_expected);
  CHECK(distance(dup, dup_expected) == 0.0);
  CHECK(distance(dcompressed, dcompressed_expected) <= 2 * tolerance<float>());
  const std::size_t rank = x.compressed.extent(1) - x.shape.rope_size;
  for (std::size_t t = 0; t < x.compressed.extent(0); ++t) {
    for (std::size_t c = 0; c < rank; ++c) REQUIRE(dcompressed(t, c) == x.compressed(t, c));
  }
}

}  // namespace

TEST_CASE("Latent heads and their gradients agree with their references") {
  for (const bool interleaved : {true, false}) {
    for (const auto& [shape, length, rank] : {std::tuple{LatentHeads{1, 1, 1, 2, 1}, 1, 1},
                                              {LatentHeads{2, 3, 5, 6, 7}, 5, 11},
                                              {LatentHeads{3, 16, 128, 64, 128}, 9, 512},
                                              {LatentHeads{1, 5, 0, 18, 33}, 37, 0},
                                              {LatentHeads{0, 2, 4, 4, 4}, 3, 8}}) {
      LatentHeads heads = shape;
      heads.interleaved = interleaved;
      CAPTURE(interleaved, heads.heads, heads.nope_size, length, rank);
      const Arrays x(heads, length, rank);
      check_query<float>(x);
      check_query<bf16>(x);
      check_key_value<float>(x);
      check_key_value<bf16>(x);
    }
  }
}

TEST_CASE("Neighbours or halves are turned as pairs, and the turned head is in halves") {
  const RopeTable table = make_rope_table({{1.0, 0.25}, 2.0}, 2);
  Matrix<float> projected("projected", 2, 5);
  for (int c = 0; c < 5; ++c) projected(1, c) = static_cast<float>(c + 1);  // nope 1, rope 2 3 4 5
  const double c0 = 2.0 * std::cos(1.0), s0 = 2.0 * std::sin(1.0);
  const double c1 = 2.0 * std::cos(0.25), s1 = 2.0 * std::sin(0.25);
  Vector<float> q("q", 10);
  LatentHeads shape{1, 1, 1, 4, 1, true};
  latent_query_forward<float>(Execution(), table, shape, projected, q.data());
  const double neighbours[5] = {1.0, 2 * c0 - 3 * s0, 4 * c1 - 5 * s1, 3 * c0 + 2 * s0,
                                5 * c1 + 4 * s1};
  for (int i = 0; i < 5; ++i) CHECK(q(5 + i) == Approx(neighbours[i]).epsilon(1e-6));
  shape.interleaved = false;
  latent_query_forward<float>(Execution(), table, shape, projected, q.data());
  const double halves[5] = {1.0, 2 * c0 - 4 * s0, 3 * c1 - 5 * s1, 4 * c0 + 2 * s0,
                            5 * c1 + 3 * s1};
  for (int i = 0; i < 5; ++i) CHECK(q(5 + i) == Approx(halves[i]).epsilon(1e-6));
}

TEST_CASE("Keys have their own first part and the one rope key, values what follows in each head") {
  const RopeTable still = make_rope_table({{0.0}, 1.0}, 3);
  const LatentHeads shape{2, 2, 3, 2, 4, true};
  const Arrays x(shape, 3, 5);
  Vector<float> k("k", x.dkey.size()), v("v", x.dvalue.size());
  latent_key_value_forward<float>(Execution(), still, shape, x.up, x.compressed, k.data(),
                                  v.data());
  // Sequence 1, head 1, position 2 is head ((1 * 2 + 1) * 3 + 2) and token 5.
  for (int i = 0; i < 3; ++i) CHECK(k(11 * 5 + i) == x.up(5, 7 + i));
  for (int i = 0; i < 2; ++i) CHECK(k(11 * 5 + 3 + i) == x.compressed(5, 5 + i));
  for (int i = 0; i < 4; ++i) CHECK(v(11 * 4 + i) == x.up(5, 10 + i));
}

TEST_CASE("The gradients of latent heads agree with central differences") {
  for (const bool interleaved : {true, false}) {
    CAPTURE(interleaved);
    const LatentHeads shape{2, 2, 3, 4, 2, interleaved};
    const Arrays x(shape, 3, 2);
    Vector<float> q("q", x.dkey.size()), k("k", x.dkey.size()), v("v", x.dvalue.size());
    const auto query_loss = [&] {
      reference::latent_query_forward<float>(x.table, shape, x.projected, q.data());
      return weighted_sum(q, x.dkey);
    };
    const auto key_value_loss = [&] {
      reference::latent_key_value_forward<float>(x.table, shape, x.up, x.compressed, k.data(),
                                                 v.data());
      return weighted_sum(k, x.dkey) + weighted_sum(v, x.dvalue);
    };
    const auto dprojected = copy_of(x.projected), dup = copy_of(x.up);
    Matrix<float> dcompressed("dcompressed", x.tokens, x.compressed.extent(1));
    reference::latent_query_backward<float>(x.table, shape, x.dkey.data(), dprojected);
    reference::latent_key_value_backward<float>(x.table, shape, x.dkey.data(), x.dvalue.data(), dup,
                                                dcompressed);
    CHECK(distance(dprojected, central_differences(x.projected, query_loss)) < 1e-4);
    CHECK(distance(dup, central_differences(x.up, key_value_loss)) < 1e-4);
    CHECK(distance(dcompressed, central_differences(x.compressed, key_value_loss)) < 1e-4);
  }
}
