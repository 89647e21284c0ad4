// SPDX-License-Identifier: Apache-2.0
// Rows that move through shared memory are bit for bit those that move by messages, whatever the
// ranks' pace, and however their number changes.
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <tessera/moe/dispatch.hpp>
#include <thread>

#include "support/collective_check.hpp"

namespace tessera::moe {
namespace {

/// Choices, tokens and gradients of one layer on this rank.
template <class T>
struct Layer {
  kernel::Matrix<std::int32_t> index;
  kernel::Matrix<float> weight, x, dy;
};

struct Shape {
  std::int64_t num_tokens, hidden, num_experts, top_k;
};

kernel::Matrix<float> random_matrix(std::mt19937& random, std::int64_t rows, std::int64_t cols) {
  std::uniform_real_distribution<float> uniform(-2.0f, 2.0f);
  const kernel::Matrix<float> values("values", rows, cols);
  for (std::size_t i = 0; i < values.size(); ++i) values.data()[i] = uniform(random);
  return values;
}

template <class T>
Layer<T> random_layer(std::mt19937& random, const Shape& shape) {
  const kernel::Matrix<std::int32_t> index("choices", shape.num_tokens, shape.top_k);
  // Some layers crowd on a few experts, so that loads differ much between ranks and layers.
  const auto span = static_cast<std::int64_t>(random() % shape.num_experts) + 1;
  for (std::int64_t t = 0; t < shape.num_tokens; ++t) {
    const auto first = static_cast<std::int64_t>(random() % span);
    for (std::int64_t k = 0; k < shape.top_k; ++k) {
      index(t, k) = static_cast<std::int32_t>((first + k) % shape.num_experts);
    }
  }
  return {index, random_matrix(random, shape.num_tokens, shape.top_k),
          random_matrix(random, shape.num_tokens, shape.hidden),
          random_matrix(random, shape.num_tokens, shape.hidden)};
}

/// Everything that a rank sees of some layers forward and backward, one after the other.
using Trace = std::vector<unsigned char>;

template <class M>
void append(Trace& trace, const M& matrix) {
  const std::size_t begin = trace.size(), bytes = matrix.size() * sizeof(*matrix.data());
  trace.resize(begin + bytes);
  if (bytes > 0) std::memcpy(trace.data() + begin, matrix.data(), bytes);
}

/// Ranks at different paces, each time others, so that a missing wait is met.
class Pace {
 public:
  Pace(bool uneven, int seed) : uneven_(uneven), random_(seed) {}
  void perturb() {
    if (uneven_ && random_() % 4 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(random_() % 1500));
    }
  }

 private:
  bool uneven_;
  std::mt19937 random_;
};

template <class T>
struct Running {
  DispatchHandle handle;
  kernel::Matrix<const T> outputs;
};

/// The "experts" make another value of each row, different for each expert.
template <class T>
void expert(const DispatchHandle& handle, const kernel::Matrix<const T>& rows,
            const kernel::Matrix<T>& results) {
  std::size_t local = 0;
  for (std::size_t r = 0; r < rows.extent(0); ++r) {
    while (handle.expert_offset[local + 1] <= static_cast<std::int64_t>(r)) ++local;
    const float factor = 0.5f + static_cast<float>(local);
    for (std::size_t c = 0; c < rows.extent(1); ++c) {
      results(r, c) = T(factor * static_cast<float>(rows(r, c)));
    }
  }
}

template <class T>
Running<T> forward(TokenExchange& exchange, const Layer<T>& layer, std::int64_t num_experts,
                   bool in_place, Pace& pace, Trace& trace) {
  const auto hidden = static_cast<std::int64_t>(layer.x.extent(1));
  const auto num_tokens = static_cast<std::int64_t>(layer.x.extent(0));
  auto tokens = kernel::new_matrix<T>("own tokens", num_tokens, hidden);
  if (in_place) tokens = exchange.tokens<T>(num_tokens, hidden);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens.data()[i] = T(layer.x.data()[i]);
  pace.perturb();
  Running<T> running{plan_dispatch(exchange, num_experts, layer.index), {}};
  pace.perturb();
  const auto rows = dispatch_forward<T>(exchange, running.handle, tokens);
  append(trace, rows);
  pace.perturb();
  const auto results = exchange.results<T>(running.handle, hidden);
  expert<T>(running.handle, rows, results);
  pace.perturb();
  const kernel::Matrix<float> y("y", num_tokens, hidden);
  auto returning = start_combine_forward<T>(exchange, running.handle, results);
  pace.perturb();
  running.outputs = finish_combine_forward<T>(exchange, running.handle, std::move(returning),
                                              layer.weight, layer.x, y);
  append(trace, running.outputs);
  append(trace, y);
  pace.perturb();
  return running;
}

template <class T>
void backward(TokenExchange& exchange, const Layer<T>& layer, const Running<T>& running, Pace& pace,
              Trace& trace) {
  const auto hidden = static_cast<std::int64_t>(layer.x.extent(1));
  const kernel::Matrix<float> dweight("dweight", layer.weight.extent(0), layer.weight.extent(1));
  const kernel::Matrix<float> dx("dx", layer.x.extent(0), hidden);
  auto gradients = start_combine_backward<T>(exchange, running.handle, running.outputs,
                                             layer.weight, layer.dy, dweight);
  pace.perturb();
  const auto doutputs = finish_combine_backward<T>(exchange, running.handle, std::move(gradients));
  pace.perturb();
  append(trace, dweight);
  append(trace, doutputs);
  const auto drows = exchange.results<T>(running.handle, hidden);
  expert<T>(running.handle, doutputs, drows);
  pace.perturb();
  auto returning = start_dispatch_backward<T>(exchange, running.handle, drows);
  finish_dispatch_backward<T>(exchange, running.handle, std::move(returning), dx);
  append(trace, dx);
  pace.perturb();
}

/// A step: all layers forward, then backward in reverse order.
template <class T>
Trace step(TokenExchange& exchange, const std::vector<Layer<T>>& layers, std::int64_t num_experts,
           bool in_place, Pace& pace) {
  Trace trace;
  std::vector<Running<T>> running;
  for (const Layer<T>& layer : layers) {
    running.push_back(forward(exchange, layer, num_experts, in_place, pace, trace));
  }
  for (std::size_t i = layers.size(); i-- > 0;) {
    backward(exchange, layers[i], running[i], pace, trace);
  }
  return trace;
}

template <class T>
std::vector<Layer<T>> random_layers(std::mt19937& random, const Shape& shape) {
  std::vector<Layer<T>> layers;
  for (int i = 0; i < 3; ++i) layers.push_back(random_layer<T>(random, shape));
  return layers;
}

/// An exchange that found no shared memory when it was first used.
TokenExchange by_messages(const comm::Communicator& axis) {
  if (axis.rank() == 0) setenv("TESSERA_SHARED_MEMORY", "off", 1);
  TokenExchange exchange(axis);
  exchange.reserve(Area::plan, 1);
  if (axis.rank() == 0) unsetenv("TESSERA_SHARED_MEMORY");
  return exchange;
}

/// T of this rank in a round: now and then none, more and more, and different on each rank.
std::int64_t tokens_of(const comm::Communicator& axis, int round) {
  if ((round + axis.rank()) % 5 == 3) return 0;
  return 1 + (round * 7 + axis.rank() * 3) % (8 + 4 * round);
}

}  // namespace

TEMPLATE_TEST_CASE("Shared memory gives bit for bit what messages give, at any pace of the ranks",
                   "", float, bf16) {
  const comm::Communicator axis(MPI_COMM_WORLD, "expert");
  TokenExchange shared(axis), messages = by_messages(axis);
  std::mt19937 random(17 + axis.rank());
  Pace even(false, 0), uneven(true, 5 + axis.rank());
  for (int round = 0; round < 25; ++round) {
    const std::int64_t num_experts = std::vector<std::int64_t>{8, 3, 13, 2}[round % 4];
    const Shape shape{tokens_of(axis, round), 37, num_experts, round % 4 == 3 ? 1 : 2};
    const auto layers = random_layers<TestType>(random, shape);
    const bool in_place = round % 3 != 1;
    const Trace expected = step<TestType>(messages, layers, num_experts, in_place, even);
    const Trace found = step<TestType>(shared, layers, num_experts, in_place, uneven);
    INFO("round " << round);
    REQUIRE_ALL(axis, found == expected);
  }
  CHECK(shared.is_shared() == (axis.size() > 1));
  CHECK(!messages.is_shared());
}

TEST_CASE("Dispatch after dispatch, without the meetings of a whole layer, waits where it must") {
  const comm::Communicator axis(MPI_COMM_WORLD, "expert");
  TokenExchange shared(axis), messages = by_messages(axis);
  Pace even(false, 0), uneven(true, 7 + axis.rank());
  const auto rows = [&](TokenExchange& exchange, const Layer<bf16>& layer, bool in_place,
                        Pace& pace) {
    Trace trace;
    const auto tokens =
        in_place ? exchange.tokens<bf16>(layer.x.extent(0), layer.x.extent(1))
                 : kernel::new_matrix<bf16>("own tokens", layer.x.extent(0), layer.x.extent(1));
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens.data()[i] = bf16(layer.x.data()[i]);
    pace.perturb();
    const DispatchHandle handle = plan_dispatch(exchange, 6, layer.index);
    pace.perturb();
    append(trace, dispatch_forward<bf16>(exchange, handle, tokens));
    return trace;
  };
  // One exchange after the other: messages in between would hold the ranks together.
  const auto all_rounds = [&](TokenExchange& exchange, Pace& pace) {
    std::mt19937 random(23 + axis.rank());
    std::vector<Trace> traces;
    for (int round = 0; round < 60; ++round) {
      const auto layer = random_layer<bf16>(random, {20 + round % 3, 400, 6, 2});
      traces.push_back(rows(exchange, layer, round % 3 != 1, pace));
    }
    return traces;
  };
  const auto found = all_rounds(shared, uneven);
  const auto expected = all_rounds(messages, even);
  REQUIRE_ALL(axis, found == expected);
}

TEST_CASE("Without any token on any rank nothing moves and nobody hangs") {
  const comm::Communicator axis(MPI_COMM_WORLD, "expert");
  TokenExchange exchange(axis);
  std::mt19937 random(1);
  Pace even(false, 0);
  const auto layers = random_layers<float>(random, {0, 8, 6, 2});
  for (const bool in_place : {true, false}) {
    CHECK(step<float>(exchange, layers, 6, in_place, even).empty());
  }
}

TEST_CASE("A steady step takes no new memory, a larger one takes more and goes on") {
  const comm::Communicator axis(MPI_COMM_WORLD, "expert");
  TokenExchange exchange(axis);
  std::mt19937 random(3 + axis.rank());
  Pace even(false, 0);
  const auto small = random_layers<bf16>(random, {16, 64, 8, 2});
  const auto large = random_layers<bf16>(random, {640, 64, 8, 2});
  const auto capacities = [&] {
    std::vector<std::int64_t> bytes;
    for (std::size_t a = 0; a < num_areas; ++a) {
      bytes.push_back(exchange.capacity_bytes(static_cast<Area>(a)));
    }
    return bytes;
  };
  const Trace first = step<bf16>(exchange, small, 8, true, even);
  const auto before = capacities();
  const auto* const tokens = exchange.memory<std::byte>(Area::tokens, 0);
  REQUIRE_ALL(axis, step<bf16>(exchange, small, 8, true, even) == first);
  CHECK(capacities() == before);
  CHECK(exchange.memory<std::byte>(Area::tokens, 0) == tokens);
  step<bf16>(exchange, large, 8, true, even);
  if (axis.size() > 1) {
    CHECK(exchange.capacity_bytes(Area::tokens) >= 640 * 64 * 2);
    CHECK(capacities() > before);
  }
  REQUIRE_ALL(axis, step<bf16>(exchange, small, 8, true, even) == first);
}

TEST_CASE("When the memory to grow is not to be had, messages take over in the middle of a step") {
  const comm::Communicator axis(MPI_COMM_WORLD, "expert");
  TokenExchange exchange(axis), messages = by_messages(axis);
  std::mt19937 random(9 + axis.rank());
  Pace even(false, 0);
  constexpr std::int64_t num_experts = 6;
  auto layers = random_layers<bf16>(random, {12, 64, num_experts, 2});
  CHECK(step<bf16>(exchange, layers, num_experts, true, even) ==
        step<bf16>(messages, layers, num_experts, true, even));
  layers.push_back(random_layer<bf16>(random, {400, 64, num_experts, 2}));
  const Trace expected = step<bf16>(messages, layers, num_experts, true, even);
  if (axis.rank() == 0) setenv("TESSERA_SHARED_MEMORY", "off", 1);
  const Trace found = step<bf16>(exchange, layers, num_experts, true, even);
  if (axis.rank() == 0) unsetenv("TESSERA_SHARED_MEMORY");
  CHECK(!exchange.is_shared());
  REQUIRE_ALL(axis, found == expected);
}

}  // namespace tessera::moe
