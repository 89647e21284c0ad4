// SPDX-License-Identifier: Apache-2.0
// Gather gives back what the shards hold, reduce sums over exactly the right ranks, and nothing
// stays in use between steps.
#include <catch2/catch.hpp>
#include <cmath>
#include <tessera/zero3/grad_norm.hpp>
#include <tessera/zero3/optimizer.hpp>
#include <tessera/zero3/parameter_store.hpp>

#include "support/collective_check.hpp"

namespace tessera::zero3 {
namespace {

constexpr std::int64_t num_experts = 8;

std::vector<int> expert_axes() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> axes;
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert == 0) axes.push_back(expert);
  }
  return axes;
}

std::vector<UnitSpec> specs(const comm::ProcessGrid& grid) {
  return {{"dense", {{"a", {9, 7}}, {"norm", {5}, false, false, false}}, Placement::dense(grid)},
          {"expert",
           {{"w", {num_experts, 3, 5}, true, true}, {"b", {num_experts, 3}, true}},
           Placement::expert(grid, num_experts)}};
}

/// A value that names parameter and global element; exact in bf16 for these sizes.
float value_of(const Parameter& parameter, std::int64_t element) {
  return static_cast<float>(element % 128) + (parameter.name == "a" ? 128.0f : 0.0f);
}

template <class T>
void fill(ParameterStore<T>& store) {
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    for (const Slice& slice : store.unit(i).slices()) {
      for (std::int64_t e = slice.begin; e < slice.end; ++e) {
        store.unit(i).master()(slice.shard_offset + e - slice.begin) =
            value_of(*slice.parameter, e);
      }
    }
  }
}

/// body(parameter, index in the whole unit, global element) for all elements of this rank's unit.
template <class T, class Body>
void for_each_element(const ParameterStore<T>& store, std::size_t unit_idx, const Body& body) {
  const Unit& unit = store.unit(unit_idx);
  for (std::size_t p = 0; p < unit.parameters().size(); ++p) {
    const Parameter& parameter = unit.parameters()[p];
    const std::int64_t first = parameter.is_expert ? unit.placement().experts().begin *
                                                         parameter.size() / parameter.shape[0]
                                                   : 0;
    for (std::int64_t i = 0; i < unit.layout().local_size(p); ++i) {
      body(parameter, unit.layout().offset(p) + i, first + i);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("A gathered unit holds every rank's shard", "", float, bf16) {
  for (const int expert : expert_axes()) {
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    ParameterStore<TestType> store(specs(grid));
    fill(store);
    store.prefetch(1);
    for (const std::size_t unit : {0, 1}) {
      const TestType* whole = store.gather(unit);
      int num_wrong = 0;
      for_each_element(store, unit, [&](const Parameter& p, std::int64_t i, std::int64_t element) {
        num_wrong += static_cast<float>(whole[i]) != value_of(p, element);
      });
      CHECK(num_wrong == 0);
    }
    store.release(0);
    store.release(1);
    CHECK(store.pool().bytes_in_use() == 0);
  }
}

TEST_CASE("Gradients are summed over the ranks of the group and no others") {
  const auto transport = GENERATE(GradientTransport::f32, GradientTransport::bf16);
  for (const int expert : expert_axes()) {
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    ParameterStore<float> store(specs(grid), transport);
    store.zero_gradients();
    const int rank = grid.world().rank(), size = grid.world().size();
    constexpr int num_micro_steps = 2;
    for (int step = 0; step < num_micro_steps; ++step) {
      for (const std::size_t unit : {1, 0}) {
        float* contribution = store.gradient(unit);
        for_each_element(store, unit, [&](const Parameter&, std::int64_t i, std::int64_t element) {
          contribution[i] += static_cast<float>(rank + 1) * static_cast<float>(element % 3);
        });
        store.reduce(unit);
      }
      store.finish_reductions();
    }
    CHECK(store.pool().bytes_in_use() == 0);
    double squares = 0.0;
    for (const std::size_t unit : {0, 1}) {
      double ranks_sum = 0.0;  // of (rank + 1) over the unit's group
      for (const int member : store.unit(unit).group().world_ranks()) ranks_sum += member + 1;
      int num_wrong = 0;
      for (const Slice& slice : store.unit(unit).slices()) {
        for (std::int64_t e = slice.begin; e < slice.end; ++e) {
          const double expected = num_micro_steps * ranks_sum * static_cast<double>(e % 3);
          num_wrong +=
              store.unit(unit).gradient()(slice.shard_offset + e - slice.begin) != expected;
          squares += expected * expected;
        }
      }
      CHECK(num_wrong == 0);
    }
    const double total = grid.world().all_reduce_value("squares", squares, comm::ReduceOp::sum);
    CHECK(global_grad_norm(grid.world(), store, false).norm == Approx(std::sqrt(total)));
    const GradNorm flagged = global_grad_norm(grid.world(), store, rank == size - 1);
    CHECK(flagged.num_failed == 1.0);
  }
}

TEST_CASE("SGD updates each owned element once and spares norms from weight decay") {
  for (const int expert : expert_axes()) {
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    ParameterStore<float> store(specs(grid));
    fill(store);
    for (const std::size_t unit : {0, 1}) Kokkos::deep_copy(store.unit(unit).gradient(), 2.0f);
    OptimizerOptions options;
    options.kind = OptimizerKind::sgd;
    options.weight_decay = 0.5;
    optimizer_step(store, options, 0.25, 1, 0.5);
    for (const std::size_t unit : {0, 1}) {
      for (const Slice& slice : store.unit(unit).slices()) {
        for (std::int64_t e = slice.begin; e < slice.end; ++e) {
          const float before = value_of(*slice.parameter, e);
          const float decay = slice.parameter->weight_decay ? 0.5f * before : 0.0f;
          const float expected = before - 0.25f * (1.0f + decay);
          CHECK(store.unit(unit).master()(slice.shard_offset + e - slice.begin) ==
                Approx(expected));
        }
      }
    }
  }
}

TEST_CASE("Clipping is torch's factor") {
  CHECK(clip_factor(4.0, 1.0) == Approx(1.0 / (4.0 + 1e-6)).epsilon(1e-12));
  CHECK(clip_factor(0.5, 1.0) == 1.0);
  CHECK(clip_factor(4.0, 0.0) == 1.0);
}

}  // namespace tessera::zero3
