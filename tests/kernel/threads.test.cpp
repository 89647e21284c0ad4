// SPDX-License-Identifier: Apache-2.0
// Several threads give the bits that one gives. For Kokkos' OpenMP backend, whose execution spaces
// can be made with a number of threads.
#include <catch2/catch.hpp>
#include <cstring>

#include "kernel/addressed_rows.hpp"
#include "kernel/attention.hpp"
#include "kernel/cross_entropy.hpp"
#include "kernel/optimizer.hpp"
#include "kernel/rms_norm.hpp"
#include "kernel/rows.hpp"
#include "kernel/swiglu.hpp"
#include "kernel/top_k.hpp"
#include "rows_data.hpp"

using namespace tessera;
using namespace tessera::kernel;
using namespace tessera::kernel::test;

namespace {

Vector<float> zeros(std::int64_t size) { return Vector<float>("zeros", size); }
Matrix<float> zeros(std::int64_t rows, std::int64_t columns) {
  return Matrix<float>("zeros", rows, columns);
}

template <class View>
void append(std::string& bits, const View& view) {
  using T = typename View::value_type;
  bits.append(reinterpret_cast<const char*>(view.data()), view.size() * sizeof(T));
}
void append(std::string& bits, double value) {
  bits.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// run(execution, bits) appends what a kernel computes.
template <class Run>
void check_threads(const Run& run) {
  const auto bits_of = [&](const Execution& execution) {
    std::string bits;
    run(execution, bits);
    execution.fence();
    return bits;
  };
  const std::string one = bits_of(Execution(1));
  REQUIRE(!one.empty());
  for (int repeat = 0; repeat < 3; ++repeat) CHECK((bits_of(Execution()) == one));
}

constexpr std::int64_t rows = 531, columns = 217;  // more rows than blocks of sums, no multiples

}  // namespace

TEST_CASE("the tests of threads have several") { REQUIRE(Execution().concurrency() > 1); }

TEST_CASE("sums over rows and elements do not depend on the threads") {
  const auto x = random_matrix<float>(rows, columns, 1);
  check_threads([&](const Execution& execution, std::string& bits) {
    const auto sum = zeros(columns);
    add_column_sums<float>(execution, x, sum);
    append(bits, sum_of_squares(execution, Vector<const float>(x.data(), x.size())));
    execution.fence();
    append(bits, sum);
  });
}

TEST_CASE("rows that meet are added in their order") {
  const auto x = random_matrix<float>(rows, columns, 1);
  const auto index = random_indices(rows, 7, 2);
  const auto slot = random_slots(rows / 3, 3, 3);
  const auto weight = random_matrix<float>(rows / 3, 3, 4);
  check_threads([&](const Execution& execution, std::string& bits) {
    const auto scattered = zeros(7, columns), combined = zeros(rows / 3, columns);
    scatter_add_rows(execution, x, index, 5, 0, scattered);
    const auto addresses = addresses_of<const float>(execution, x);
    combine_rows<float>(execution, addresses, slot, weight, combined, combined, Matrix<float>());
    sum_rows<float>(execution, addresses, slot, combined);
    execution.fence();
    append(bits, scattered);
    append(bits, combined);
  });
}

TEMPLATE_TEST_CASE("cross-entropy does not depend on the threads", "", float, bf16) {
  const auto logits = random_matrix<float>(rows, columns, 1, -8.0, 8.0);
  Vector<std::int64_t> target("target", rows);
  for (std::int64_t i = 0; i < rows; ++i) target(i) = i % 11 == 0 ? ignored_label : i % columns;
  check_threads([&](const Execution& execution, std::string& bits) {
    const auto gradient = copy_of(logits);
    append(bits, cross_entropy(execution, logits, target));
    append(bits, cross_entropy_gradient<TestType>(execution, gradient, target, 0.25f));
    append(bits, gradient);
  });
}

TEMPLATE_TEST_CASE("norms do not depend on the threads", "", float, bf16) {
  const auto x = random_matrix<float>(rows, columns, 1),
             dy = random_matrix<float>(rows, columns, 2);
  const auto weight = random_vector<TestType>(columns, 3);
  check_threads([&](const Execution& execution, std::string& bits) {
    const Matrix<TestType> y("y", rows, columns);
    const auto dx = zeros(rows, columns);
    const auto rstd = zeros(rows), dweight = zeros(columns);
    rms_norm_forward<TestType, TestType>(execution, x, weight, 1e-5f, y, rstd);
    rms_norm_backward<TestType>(execution, dy, x, weight, rstd, dx, dweight);
    execution.fence();
    append(bits, y);
    append(bits, dx);
    append(bits, dweight);
  });
}

TEST_CASE("routing does not depend on the threads") {
  const auto logits = random_matrix<float>(rows, 32, 1, -4.0, 4.0);
  check_threads([&](const Execution& execution, std::string& bits) {
    const Matrix<std::int32_t> index("index", rows, 4);
    const auto weight = zeros(rows, 4), dlogits = zeros(rows, 32);
    const Vector<double> probability("probability", 32), chosen("chosen", 32);
    top_k_softmax_forward(execution, logits, index, weight);
    router_statistics(execution, logits, index, probability, chosen);
    top_k_softmax_backward(execution, index, weight, weight, dlogits);
    execution.fence();
    append(bits, index);
    append(bits, weight);
    append(bits, dlogits);
    append(bits, probability);
    append(bits, chosen);
  });
}

TEMPLATE_TEST_CASE("attention does not depend on the threads", "", float, bf16) {
  const AttentionShape shape{.sequences = 2,
                             .length = 301,
                             .query_heads = 6,
                             .kv_heads = 2,
                             .head_size = 16,
                             .value_size = 12,
                             .scale = 0.25f,
                             .window = 130};
  const std::int64_t tokens = shape.sequences * shape.length;
  const auto q = random_vector<TestType>(tokens * 6 * 16, 1);
  const auto k = random_vector<TestType>(tokens * 2 * 16, 2);
  const auto v = random_vector<TestType>(tokens * 2 * 12, 3);
  const auto dout = random_vector<TestType>(tokens * 6 * 12, 4);
  const auto sinks = random_vector<float>(6, 5);
  check_threads([&](const Execution& execution, std::string& bits) {
    const auto out = zeros(tokens * 6 * 12), lse = zeros(tokens * 6);
    const auto dq = zeros(q.size()), dk = zeros(k.size()), dv = zeros(v.size()), dsinks = zeros(6);
    attention_forward<TestType>(execution, shape, q.data(), k.data(), v.data(), sinks.data(),
                                out.data(), lse.data());
    attention_backward<TestType>(execution, shape, q.data(), k.data(), v.data(), sinks.data(),
                                 out.data(), lse.data(), dout.data(), dq.data(), dk.data(),
                                 dv.data(), dsinks.data());
    execution.fence();
    for (const auto& result : {out, lse, dq, dk, dv, dsinks}) append(bits, result);
  });
}

TEMPLATE_TEST_CASE("SwiGLU and AdamW do not depend on the threads", "", float, bf16) {
  const auto hidden = random_matrix<float>(rows, 2 * columns, 1);
  const auto gradient = random_matrix<float>(rows, columns, 2);
  const std::int64_t size = gradient.size();
  const Vector<const float> flat(gradient.data(), size);
  check_threads([&](const Execution& execution, std::string& bits) {
    const Matrix<TestType> activated("activated", rows, columns), dhidden("dh", rows, 2 * columns);
    const auto input = copy_of(hidden);
    swiglu_forward<TestType>(execution, {}, {}, {}, input, activated);
    swiglu_backward<TestType>(execution, {}, input, gradient, dhidden);
    const auto parameter = random_vector<float>(size, 3), m = zeros(size), v = zeros(size);
    const Vector<TestType> copy("copy", size);
    adamw<TestType>(execution, {.weight_decay = 0.1}, flat, parameter, m, v, copy);
    execution.fence();
    append(bits, activated);
    append(bits, dhidden);
    append(bits, parameter);
    append(bits, copy);
  });
}
