// SPDX-License-Identifier: Apache-2.0
// Plans of published models: what can be counted by hand, which grid is taken, and that 100,000
// ranks are few different ones.
#include <catch2/catch.hpp>
#include <tessera/study/describe_plan.hpp>

#include "base/error.hpp"
#include "model/family_released.hpp"

namespace tessera::study {
namespace {

using Catch::Contains;

constexpr std::int64_t gib = std::int64_t{1} << 30;

model::ModelConfig deepseek_v3() {
  return model::parse_config(tessera::test::deepseek_v3().dump(), "deepseek");
}
model::ModelConfig qwen3() {
  return model::parse_config(tessera::test::qwen3_30b_a3b().dump(), "qwen3");
}

RunShape shape_of(std::int64_t num_ranks, std::int64_t expert) {
  RunShape shape;
  shape.num_ranks = num_ranks;
  shape.expert = expert;
  shape.ranks_per_node = 8;
  shape.batch = num_ranks;
  shape.length = 4096;
  shape.dtype = Dtype::bf16;
  return shape;
}

std::int64_t owned(const std::vector<MemoryPlan>& plans) {
  std::int64_t sum = 0;
  for (const MemoryPlan& plan : plans) sum += plan.num_ranks * plan.num_parameters;
  return sum;
}

}  // namespace

TEST_CASE("The ranks own the whole model, each parameter once") {
  for (const model::ModelConfig& config : {deepseek_v3(), qwen3()}) {
    const auto total = static_cast<double>(num_parameters(config));
    for (const std::int64_t expert : {1, 8, 64}) {
      const auto plans = plan_memory(config, shape_of(512, expert));
      CHECK(static_cast<double>(owned(plans)) == Approx(total).epsilon(0.002));  // with padding
      const MemoryPlan& plan = plans.front();
      CHECK(plan.of(MemoryKind::parameters) == 4 * plan.num_parameters);
      CHECK(plan.of(MemoryKind::gradients) == 4 * plan.num_parameters);
      CHECK(plan.of(MemoryKind::optimizer) == 8 * plan.num_parameters);
    }
  }
}

TEST_CASE("Ranks with more experts or more sequences have plans of their own") {
  RunShape shape = shape_of(96, 96);  // 128 experts: the first 32 ranks hold two
  shape.batch = 100;                  // the first four have two sequences
  const auto plans = plan_memory(qwen3(), shape);
  REQUIRE(plans.size() == 3);
  std::int64_t num_ranks = 0;
  for (const MemoryPlan& plan : plans) num_ranks += plan.num_ranks;
  CHECK(num_ranks == 96);
  CHECK(largest(plans).first_rank == 0);
}

TEST_CASE("More of what costs memory costs more, and recomputing less") {
  const model::ModelConfig config = qwen3();
  const auto bytes = [&](const RunShape& shape) {
    return largest(plan_memory(config, shape)).rank_bytes();
  };
  const RunShape base = shape_of(64, 8);
  RunShape attention = base, layer = base, longer = base, skewed = base, sgd = base, split = base;
  attention.recompute = model::Recompute::attention;
  layer.recompute = model::Recompute::layer;
  longer.length = 8192;
  skewed.imbalance = 1.5;
  sgd.optimizer = zero3::OptimizerKind::sgd;
  split.batch = longer.batch = 128;
  split.micro_batch = 1;
  CHECK(bytes(attention) < bytes(base));
  CHECK(bytes(layer) < bytes(attention));
  CHECK(bytes(longer) > bytes(base));
  CHECK(bytes(skewed) > bytes(base));
  CHECK(bytes(sgd) < bytes(base));
  CHECK(bytes(split) == Approx(bytes(base)).epsilon(0.001));  // two micro-steps, one at a time
}

TEST_CASE("No rank ever holds a large vocabulary matrix whole") {
  // Layers and experts of a rank are far smaller than the matrix, so it would show.
  const model::ModelConfig config = qwen3();
  const std::int64_t matrix_size = config.vocab_size * config.hidden_size;
  RunShape shape = shape_of(64, 32);
  shape.length = 128;
  shape.shares_memory = false;
  const MemoryPlan plan = largest(plan_memory(config, shape));
  CHECK(config.vocabulary_chunk > 0);
  CHECK(plan.of(MemoryKind::gathered_parameters) < matrix_size * 2);
  CHECK(plan.of(MemoryKind::gathered_gradients) < matrix_size * 4);
}

TEST_CASE("A hundred thousand ranks are planned for as quickly as a few") {
  const auto plans = plan_memory(deepseek_v3(), shape_of(98'304, 256));
  CHECK(plans.size() == 1);
  CHECK(plans.front().num_ranks == 98'304);
}

TEST_CASE("The grid with the least traffic of those that fit is taken") {
  const std::vector<GridPlan> grids = plan_grids(qwen3(), shape_of(32, 1));
  REQUIRE(grids.size() == 6);  // 1, 2, 4, 8, 16, 32
  const auto best = best_grid(grids, std::nullopt);
  REQUIRE(best.has_value());
  for (const GridPlan& grid : grids) CHECK(grid.traffic_bytes >= grids[*best].traffic_bytes);
  CHECK_FALSE(best_grid(grids, 1 * gib).has_value());
  // A limit that the best one misses by a byte leaves it to another.
  const std::int64_t limit = grids[*best].memory.rank_bytes() + program_bytes - 1;
  const auto other = best_grid(grids, limit);
  CHECK(other != best);
  if (other) CHECK(grids[*other].memory.rank_bytes() + program_bytes <= limit);
  CHECK_THAT(describe(grids, std::nullopt), Contains("* --expert"));
  CHECK_THAT(describe(grids, 1 * gib), Contains("No grid fits into 1.00 GiB"));
}

TEST_CASE("Numbers that do not fit each other are refused") {
  const model::ModelConfig config = qwen3();
  CHECK_THROWS_WITH(plan_memory(config, shape_of(10, 4)), Contains("does not divide"));
  CHECK_THROWS_WITH(plan_memory(config, shape_of(256, 256)), Contains("128 experts"));
  RunShape shape = shape_of(8, 8);
  shape.imbalance = 0.5;
  CHECK_THROWS_AS(plan_memory(config, shape), Error);
}

}  // namespace tessera::study
