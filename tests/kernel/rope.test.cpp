// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies against transformers' numbers, the rotation against its reference and the
// transposed rotation against central differences.
#include "kernel/rope.hpp"

#include <catch2/catch.hpp>

#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

YarnOptions gpt_oss(std::int64_t head_size) {
  YarnOptions options;
  options.theta = 150000.0;
  options.head_size = head_size;
  options.factor = 32.0;
  options.truncate = false;
  return options;
}

/// Up to one step of an f32: the power function's last bit differs between libraries.
void check_frequencies(const std::vector<double>& actual, const std::vector<double>& expected) {
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK(actual[i] == Approx(expected[i]).epsilon(1.3e-7).margin(0.0));
  }
}

struct Shape {
  std::int64_t sequences, length, kv_heads, group, head_size;
  std::int64_t tokens() const { return sequences * length; }
  std::int64_t columns() const { return kv_heads * group * head_size; }
  std::int64_t size() const { return tokens() * columns(); }
};
const Shape shapes[] = {{1, 1, 1, 1, 2}, {2, 5, 3, 2, 6}, {3, 17, 2, 8, 64}, {1, 33, 5, 1, 18}};

template <class T>
void check_forward(const Shape& shape, bool has_bias) {
  const RopeTable table = make_rope_table(yarn_frequencies(gpt_oss(shape.head_size)), 40);
  const auto projected = random_matrix<float>(shape.tokens(), shape.columns(), 1);
  const auto bias = random_vector<T>(has_bias ? shape.columns() : 0, 2);
  Vector<T> heads("heads", shape.size()), expected("expected", shape.size());
  rope_forward<T>(Execution(), table, shape.sequences, shape.kv_heads, shape.group, projected, bias,
                  heads.data());
  reference::rope_forward<T>(table, shape.sequences, shape.kv_heads, shape.group, projected, bias,
                             expected.data());
  CHECK(distance(heads, expected) <= tolerance<T>());
}

template <class T>
void check_backward(const Shape& shape) {
  const RopeTable table = make_rope_table(yarn_frequencies(gpt_oss(shape.head_size)), 40);
  const auto dheads = random_vector<float>(shape.size(), 3);
  Matrix<T> dprojected("dprojected", shape.tokens(), shape.columns());
  Matrix<T> expected("expected", shape.tokens(), shape.columns());
  rope_backward<T>(Execution(), table, shape.sequences, shape.kv_heads, shape.group, dheads.data(),
                   dprojected);
  reference::rope_backward<T>(table, shape.sequences, shape.kv_heads, shape.group, dheads.data(),
                              expected);
  CHECK(distance(dprojected, expected) <= tolerance<T>());
}

}  // namespace

TEST_CASE("YaRN frequencies of gpt-oss-20b are the published ones") {
  const RopeFrequencies frequencies = yarn_frequencies(gpt_oss(64));
  CHECK(frequencies.attention_factor == Approx(1.3465735903).epsilon(1e-10));
  const std::vector<std::pair<std::size_t, double>> published = {
      {0, 1.000000000e+00},  {1, 6.890443059e-01},  {8, 5.081327482e-02},  {9, 3.170569618e-02},
      {12, 6.794959490e-03}, {17, 1.293187012e-04}, {18, 3.830881237e-05}, {31, 3.023511428e-07}};
  for (const auto& [i, value] : published) {
    CHECK(frequencies.inverse[i] == Approx(value).epsilon(2e-7).margin(0.0));
  }
}

// The literals below were printed by transformers 5.23's ROPE_INIT_FUNCTIONS in f32.
TEST_CASE("YaRN frequencies agree with transformers where the head size is no power of two") {
  check_frequencies(
      yarn_frequencies(gpt_oss(24)).inverse,
      {1, 0.370389819, 0.137188628, 0.0508132726, 0.0137774786, 0.0031677403, 0.000456483918,
       2.98857085e-05, 1.10693582e-05, 4.09997847e-06, 1.51859081e-06, 5.62470291e-07});
}

TEST_CASE("YaRN with a truncated range and mscale agrees with transformers") {
  YarnOptions options;
  options.head_size = 16;
  options.factor = 40.0;
  options.mscale = 0.707;
  options.mscale_all_dim = 1.0;
  const RopeFrequencies frequencies = yarn_frequencies(options);
  check_frequencies(frequencies.inverse, {1, 0.316227764, 0.100000001, 0.0239147246, 0.00512499968,
                                          0.000849862176, 2.49999994e-05, 7.90569447e-06});
  CHECK(frequencies.attention_factor == Approx(0.9210423553163399).epsilon(1e-14));
  options.attention_factor = 1.25;
  CHECK(yarn_frequencies(options).attention_factor == 1.25);
}

TEST_CASE("Linear frequencies agree with transformers") {
  const RopeFrequencies frequencies = linear_frequencies(10000.0, 24, 3.0);
  CHECK(frequencies.attention_factor == 1.0);
  check_frequencies(frequencies.inverse,
                    {0.333333343, 0.154719636, 0.0718144849, 0.0333333351, 0.0154719613,
                     0.00718144933, 0.00333333318, 0.00154719653, 0.000718144758, 0.000333333359,
                     0.000154719644, 7.18144729e-05});
  check_frequencies(linear_frequencies(500000.0, 16, 7.3).inverse,
                    {0.1369863, 0.0265647601, 0.0051515107, 0.00099899515, 0.000193727858,
                     3.7568243e-05, 7.28533632e-06, 1.41279247e-06});
}

TEST_CASE("The frequencies of Llama 3.2 agree with transformers") {
  Llama3Options options;
  options.theta = 500000.0;
  options.head_size = 64;
  options.factor = 32.0;
  const RopeFrequencies frequencies = llama3_frequencies(options);
  CHECK(frequencies.attention_factor == 1.0);
  check_frequencies(frequencies.inverse, {1,
                                          0.663601279,
                                          0.440366626,
                                          0.292227834,
                                          0.193922758,
                                          0.128687382,
                                          0.0853971019,
                                          0.0566696189,
                                          0.0376060307,
                                          0.0249554086,
                                          0.0165604409,
                                          0.0109895291,
                                          0.00729266508,
                                          0.00483942125,
                                          0.00321144611,
                                          0.00129054801,
                                          0.000429556705,
                                          9.70828623e-05,
                                          1.94616387e-05,
                                          1.29147675e-05,
                                          8.57025589e-06,
                                          5.68723226e-06,
                                          3.77405445e-06,
                                          2.50446715e-06,
                                          1.66196742e-06,
                                          1.10288363e-06,
                                          7.31874934e-07,
                                          4.85673127e-07,
                                          3.22293289e-07,
                                          2.1387423e-07,
                                          1.41927202e-07,
                                          9.41830649e-08});
}

TEST_CASE("A wide mixed range of llama3 frequencies agrees with transformers") {
  check_frequencies(
      llama3_frequencies({10000.0, 24, 8.0, 1.5, 40.0, 500}).inverse,
      {1, 0.431842744, 0.103532553, 0.0271766987, 0.00811608974, 0.00279804505, 0.00124999997,
       0.000580198714, 0.000269304292, 0.000125000006, 5.80198684e-05, 2.69304273e-05});
}

TEST_CASE("Default frequencies are the powers of theta") {
  const RopeFrequencies frequencies = default_frequencies(10000.0, 24);
  CHECK(frequencies.attention_factor == 1.0);
  check_frequencies(frequencies.inverse, {1, 0.464158893, 0.215443447, 0.100000001, 0.046415884,
                                          0.0215443484, 0.00999999978, 0.00464158971, 0.00215443433,
                                          0.00100000005, 0.000464158948, 0.000215443419});
}

TEST_CASE("The table holds cosine and sine times the attention factor") {
  const RopeTable table = make_rope_table({{1.0, 0.25}, 1.5}, 9);
  REQUIRE(table.cosine.extent(0) == 9);
  CHECK(table.cosine(0, 0) == 1.5f);
  CHECK(table.sine(0, 1) == 0.0f);
  CHECK(table.cosine(8, 1) == Approx(1.5 * std::cos(2.0)).epsilon(1e-7));
  CHECK(table.sine(8, 0) == Approx(1.5 * std::sin(8.0)).epsilon(1e-7));
}

TEST_CASE("Rotation agrees with its reference, with and without bias") {
  for (const Shape& shape : shapes) {
    check_forward<float>(shape, true);
    check_forward<bf16>(shape, true);
    check_forward<float>(shape, false);
    check_forward<bf16>(shape, false);
    check_backward<float>(shape);
    check_backward<bf16>(shape);
  }
}

TEST_CASE("A rank without sequences rotates nothing") {
  check_forward<float>({0, 5, 2, 2, 8}, true);
  check_backward<bf16>({0, 5, 2, 2, 8});
  split_heads<float>(Execution(), 0, 2, Matrix<float>("p", 0, 8), Vector<float>("b", 8), nullptr);
  merge_heads<float>(Execution(), 0, 2, nullptr, Matrix<float>("p", 0, 8));
}

TEST_CASE("The transposed rotation is the gradient of the rotation") {
  const Shape shape{2, 3, 2, 2, 4};
  const RopeTable table = make_rope_table(yarn_frequencies(gpt_oss(4)), 3);
  auto projected = random_matrix<float>(shape.tokens(), shape.columns(), 5);
  const auto dheads = random_vector<float>(shape.size(), 6);
  Vector<float> heads("heads", shape.size());
  Matrix<float> dprojected("dprojected", shape.tokens(), shape.columns());
  const auto loss = [&] {
    reference::rope_forward<float>(table, 2, 2, 2, projected, Vector<float>(), heads.data());
    return weighted_sum(heads, dheads);
  };
  reference::rope_backward<float>(table, 2, 2, 2, dheads.data(), dprojected);
  CHECK(distance(dprojected, central_differences(projected, loss)) < 1e-4);
}

TEST_CASE("Without a turn the rotation is the move of heads that values take") {
  const Shape shape{2, 7, 3, 1, 10};
  const RopeTable still = make_rope_table({std::vector<double>(5, 0.0), 1.0}, 7);
  const auto projected = random_matrix<float>(shape.tokens(), shape.columns(), 7);
  const auto bias = random_vector<bf16>(shape.columns(), 8);
  Vector<bf16> heads("heads", shape.size()), expected("expected", shape.size());
  split_heads<bf16>(Execution(), 2, 3, projected, bias, heads.data());
  rope_forward<bf16>(Execution(), still, 2, 3, 1, projected, bias, expected.data());
  CHECK(distance(heads, expected) == 0.0);

  const auto dheads = random_vector<float>(shape.size(), 9);
  Matrix<float> merged("merged", shape.tokens(), shape.columns());
  Vector<float> split("split", shape.size());
  merge_heads<float>(Execution(), 2, 3, dheads.data(), merged);
  split_heads<float>(Execution(), 2, 3, merged, Vector<float>(), split.data());
  CHECK(distance(split, dheads) == 0.0);
  CHECK(merged(8, 13) == dheads((((1 * 3 + 1) * 7) + 1) * 10 + 3));
}
