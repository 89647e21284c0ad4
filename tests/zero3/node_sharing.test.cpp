// SPDX-License-Identifier: Apache-2.0
// Parameters and gradients that lie in shared memory: the same bits as by MPI, and no rank changes
// what another still reads, whoever is late.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <random>
#include <tessera/zero3/grad_norm.hpp>
#include <tessera/zero3/optimizer.hpp>

#include "store_fixture.hpp"
#include "support/collective_check.hpp"

namespace tessera::zero3 {
namespace {

using test::expert_axes;

/// The environment says whether stores made while this lives may share memory.
class SharedMemorySetting {
 public:
  explicit SharedMemorySetting(bool on) { setenv("TESSERA_SHARED_MEMORY", on ? "on" : "off", 1); }
  ~SharedMemorySetting() { unsetenv("TESSERA_SHARED_MEMORY"); }
};

float start_value(const Parameter& parameter, std::int64_t element) {
  return 0.37f * static_cast<float>(element % 1013) - static_cast<float>(parameter.name.size());
}

/// Not exact in any type, different on every rank, unit and element.
float contribution(int rank, std::size_t unit_idx, std::int64_t element, float parameter) {
  return 0.013f * static_cast<float>((7 * element + 31 * rank) % 997) -
         0.1f * static_cast<float>(unit_idx) + 1e-3f * parameter;
}

/// What a run leaves behind, bit for bit.
struct Trace {
  std::vector<float> numbers;
  bool operator==(const Trace& other) const {
    return numbers.size() == other.numbers.size() &&
           std::memcmp(numbers.data(), other.numbers.data(), numbers.size() * sizeof(float)) == 0;
  }
};

/// Three steps of two micro-steps with AdamW; gathers are prefetched as the model does it.
template <class T>
Trace run_steps(const comm::ProcessGrid& grid, GradientTransport transport) {
  ParameterStore<T> store(test::specs(grid), transport);
  test::fill(store, start_value);
  Trace trace;
  const int rank = grid.world().rank();
  for (int step = 1; step <= 3; ++step) {
    store.zero_gradients();
    for (int micro_step = 0; micro_step < 2; ++micro_step) {
      for (std::size_t unit = 0; unit < store.num_units(); ++unit) {
        const T* whole = store.gather(unit);
        if (unit + 1 < store.num_units()) store.prefetch(unit + 1);
        // The second unit is written, the others are added to.
        float* gradient = unit == 1 ? store.overwritable_gradient(unit) : nullptr;
        const bool overwrites = gradient != nullptr;
        if (!overwrites) gradient = store.gradient(unit);
        store.progress();
        test::for_each_element(
            store, unit, [&](const Parameter&, std::int64_t i, std::int64_t element) {
              const float value = static_cast<float>(whole[i]);
              const float own = contribution(rank, unit, element + micro_step, value);
              gradient[i] = overwrites ? own : gradient[i] + own;
              trace.numbers.push_back(value);
            });
        store.release(unit);
        store.reduce(unit);
      }
      store.finish_reductions();
    }
    const double norm = global_grad_norm(grid.world(), store, false).norm;
    trace.numbers.push_back(static_cast<float>(norm));
    for (std::size_t unit = 0; unit < store.num_units(); ++unit) {
      const auto& gradient = store.unit(unit).gradient();
      trace.numbers.insert(trace.numbers.end(), gradient.data(), gradient.data() + gradient.size());
    }
    optimizer_step(store, OptimizerOptions(), 0.01, step, clip_factor(norm, 1.0));
  }
  return trace;
}

void sleep_a_little(std::mt19937& random) {
  if (random() % 3 == 0) usleep(random() % 2000);
}

}  // namespace

TEMPLATE_TEST_CASE("Training through shared memory leaves the same bits as through MPI", "", float,
                   bf16) {
  const auto transport = GENERATE(GradientTransport::f32, GradientTransport::bf16);
  for (const int expert : expert_axes()) {
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    Trace shared, travelling;
    {
      const SharedMemorySetting setting(true);
      shared = run_steps<TestType>(grid, transport);
    }
    {
      const SharedMemorySetting setting(false);
      travelling = run_steps<TestType>(grid, transport);
    }
    CHECK(shared == travelling);
  }
}

// Over nodes the order is another one, a fixed one.
TEMPLATE_TEST_CASE("Over several nodes training is repeated to the bit and close to one node's", "",
                   float, bf16) {
  const auto transport = GENERATE(GradientTransport::f32, GradientTransport::bf16);
  for (const int ranks_per_node : test::node_sizes()) {
    for (const int expert : expert_axes()) {
      const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert}, {.ranks_per_node = ranks_per_node});
      const Trace first = run_steps<TestType>(grid, transport);
      CHECK(run_steps<TestType>(grid, transport) == first);
      const SharedMemorySetting setting(false);
      const Trace travelling = run_steps<TestType>(grid, transport);
      const bool is_narrow = transport == GradientTransport::bf16 || std::is_same_v<TestType, bf16>;
      CHECK_CLOSE(first.numbers, travelling.numbers, is_narrow ? 1e-2 : 1e-5,
                  is_narrow ? 0.1 : 1e-4);
    }
  }
}

// What a gather and a reduction count, and what they really move.
TEST_CASE("Volumes are those of plain collectives; moved is what passes between ranks") {
  for (const int ranks_per_node : test::node_sizes()) {
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {1}, {.ranks_per_node = ranks_per_node});
    ParameterStore<bf16> store(test::specs(grid));
    store.gather(0);
    store.release(0);
    store.reduce(0);
    store.finish_reductions();
    const std::int64_t shard = store.unit(0).layout().shard_size();
    const std::int64_t size = grid.world().size();
    const std::int64_t node = ranks_per_node == 0 ? size : ranks_per_node;
    const std::int64_t other_nodes = size / node - 1;
    const comm::Traffic& traffic = grid.world().traffic();
    CHECK(traffic.all_gather.logical_bytes == (size - 1) * shard * 2);
    CHECK(traffic.all_gather.moved_bytes == other_nodes * shard * 2);
    CHECK(traffic.reduce_scatter.logical_bytes == (size - 1) * shard * 4);
    CHECK(traffic.reduce_scatter.moved_bytes ==
          (node - 1) * (other_nodes + 1) * shard * 4 + other_nodes * shard * 4);
    CHECK(traffic.waited_s <= traffic.in_flight_s);
  }
}

// Every rank dawdles where it likes: a buffer that is used again too early shows another round's
// values.
TEMPLATE_TEST_CASE("Nobody overwrites what a late rank still reads", "", float, bf16) {
  const int ranks_per_node = GENERATE(from_range(test::node_sizes()));
  for (const int expert : expert_axes()) {
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert}, {.ranks_per_node = ranks_per_node});
    ParameterStore<TestType> store(test::specs(grid));
    std::mt19937 random(static_cast<unsigned>(grid.world().rank()));
    int num_wrong = 0;
    for (int round = 0; round < 15; ++round) {
      // Some rounds write the masters anew, some gather the old ones again.
      const auto value = [&](const Parameter&, std::int64_t element) {
        return static_cast<float>((element + round / 2) % 128);
      };
      if (round % 2 == 0) {
        store.open_masters();
        test::fill(store, value);
      }
      store.zero_gradients();
      for (std::size_t unit = 0; unit < store.num_units(); ++unit) {
        sleep_a_little(random);
        const TestType* whole = store.gather(unit);
        sleep_a_little(random);
        float* gradient = store.gradient(unit);
        test::for_each_element(store, unit,
                               [&](const Parameter& p, std::int64_t i, std::int64_t element) {
                                 num_wrong += static_cast<float>(whole[i]) != value(p, element);
                                 num_wrong += gradient[i] != 0.0f;
                                 gradient[i] = static_cast<float>((element + round) % 61);
                               });
        store.release(unit);
        sleep_a_little(random);
        store.reduce(unit);
      }
      store.finish_reductions();
      for (std::size_t unit = 0; unit < store.num_units(); ++unit) {
        const auto size = static_cast<float>(store.unit(unit).group().size());
        for (const Slice& slice : store.unit(unit).slices()) {
          for (std::int64_t e = slice.begin; e < slice.end; ++e) {
            num_wrong += store.unit(unit).gradient()(slice.shard_offset + e - slice.begin) !=
                         size * static_cast<float>((e + round) % 61);
          }
        }
      }
    }
    CHECK(num_wrong == 0);
  }
}

TEMPLATE_TEST_CASE("Masters written anew are what is gathered next, gathered before or not", "",
                   float, bf16) {
  const int ranks_per_node = GENERATE(from_range(test::node_sizes()));
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1}, {.ranks_per_node = ranks_per_node});
  ParameterStore<TestType> store(test::specs(grid));
  const auto holds = [&](float expected) {
    int num_wrong = 0;
    for (std::size_t unit = 0; unit < store.num_units(); ++unit) {
      const TestType* whole = store.gather(unit);
      test::for_each_element(store, unit, [&](const Parameter&, std::int64_t i, std::int64_t) {
        num_wrong += static_cast<float>(whole[i]) != expected;
      });
      store.release(unit);
    }
    return num_wrong == 0;
  };
  const auto write = [&](float value) {
    store.open_masters();
    test::fill(store, [&](const Parameter&, std::int64_t) { return value; });
  };
  write(1.0f);
  CHECK(holds(1.0f));
  CHECK(holds(1.0f));
  write(2.0f);
  write(3.0f);
  CHECK(holds(3.0f));
  // A step whose result nobody gathers, and then a load.
  store.zero_gradients();
  store.finish_reductions();
  OptimizerOptions sgd;
  sgd.kind = OptimizerKind::sgd;
  optimizer_step(store, sgd, 0.1, 1, 1.0);
  CHECK(holds(3.0f));
  optimizer_step(store, sgd, 0.1, 1, 1.0);
  write(4.0f);
  CHECK(holds(4.0f));
  CHECK(store.pool().bytes_in_use() == 0);
}

TEST_CASE("A unit that no rank reduces has a zero gradient after the reductions") {
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {1});
  ParameterStore<float> store(test::specs(grid));
  Kokkos::deep_copy(store.unit(0).gradient(), 7.0f);
  store.zero_gradients();
  store.finish_reductions();
  CHECK(global_grad_norm(grid.world(), store, false).norm == 0.0);
}

}  // namespace tessera::zero3
