// SPDX-License-Identifier: Apache-2.0
// Step times: sums that can be done by hand, what must grow with what, and how often to save.
#include <catch2/catch.hpp>
#include <cmath>
#include <tessera/study/describe_time.hpp>
#include <tessera/study/work.hpp>

#include "base/error.hpp"
#include "study_models.hpp"

namespace tessera::study {
namespace {

using Catch::Contains;
using test::run_shape;

double step_s(const RunShape& shape, const Machine& machine = test::round_machine(),
              Algorithm algorithm = Algorithm::hierarchical) {
  return plan_time(test::qwen3_config(), shape, machine, algorithm).seconds();
}

}  // namespace

TEST_CASE("On one rank a step is its work over the machine's rates") {
  const model::ModelConfig config = test::qwen3_config();
  RunShape shape = run_shape(1, 1);
  Machine machine = test::round_machine();
  const Figure rate = Figure::published(5e14, "test");
  machine.products = {{Dtype::bf16, 1.0, rate, rate}, {Dtype::f32, 1.0, rate, rate}};
  machine.attention = {{Dtype::bf16, 1.0, rate, rate}};
  const StepTime time = plan_time(config, shape, machine, Algorithm::ring);
  const PhaseSeconds sum = time.sum();
  // A head in chunks computes its logits once more.
  const double again = 2.0 * 4096.0 * static_cast<double>(config.vocab_size * config.hidden_size);
  CHECK(sum.kernels.product_s + sum.kernels.attention_s ==
        Approx((step_flops(config, 1, 4096) + again) / 5e14).epsilon(1e-6));
  CHECK(time.communication_s == 0.0);
  CHECK(time.of(StepPhase::expert_backward).bound() == "product");
  CHECK(sum.bound() == "memory");  // one rank updates all parameters
  CHECK(time.of(StepPhase::optimizer).kernels.memory_s ==
        Approx((7.0 * 4.0 + 2.0 + 4.0) * static_cast<double>(num_parameters(config)) / 3e12));
}

TEST_CASE("Steps take longer where there is more to do or less to do it with") {
  const RunShape base = run_shape(64, 8);
  RunShape skewed = base, again = base, longer = base, split = base;
  skewed.imbalance = 1.5;
  again.recompute = model::Recompute::layer;
  longer.length = 8192;
  split.batch = 128;
  split.micro_batch = 1;
  CHECK(step_s(skewed) > step_s(base));
  CHECK(step_s(again) > step_s(base));
  CHECK(step_s(longer) > step_s(base));
  CHECK(step_s(split) < 2.0 * step_s(base) * 1.001);
  CHECK(step_s(split) > 1.5 * step_s(base));
  Machine machine = test::round_machine();
  machine.overlap = 0.0;
  CHECK(step_s(base, machine) > step_s(base));
  machine.network->latency_s.value *= 10.0;
  CHECK(step_s(base, machine, Algorithm::ring) > step_s(base, machine, Algorithm::logarithmic));
  const StepTime exposed = plan_time(test::qwen3_config(), base, machine, Algorithm::hierarchical);
  CHECK(exposed.waited_s == Approx(exposed.communication_s));  // without overlap all of it
  CHECK(exposed.of(StepPhase::gather_wait).bound() == "network bandwidth");
}

TEST_CASE("Shared memory takes the place of messages, and factors of measured phases count") {
  RunShape shape = run_shape(8, 4);
  shape.shares_memory = true;
  Machine machine = test::round_machine();
  const StepTime shared = plan_time(test::qwen3_config(), shape, machine, Algorithm::ring);
  CHECK(shared.of(StepPhase::gather_wait).sum() == 0.0);
  CHECK(shared.of(StepPhase::dispatch_forward).bound() == "memory");
  machine.factors[StepPhase::head] = Figure::published(3.0, "test");
  const StepTime slower = plan_time(test::qwen3_config(), shape, machine, Algorithm::ring);
  CHECK(slower.of(StepPhase::head).sum() == Approx(3.0 * shared.of(StepPhase::head).sum()));
}

TEST_CASE("A machine of one node says that it knows no other") {
  Machine machine = test::round_machine();
  machine.network.reset();
  CHECK(step_s(run_shape(8, 8), machine) > 0.0);
  CHECK_THROWS_WITH(step_s(run_shape(16, 8), machine), Contains("calibrate on two nodes"));
}

TEST_CASE("Checkpoints are as often as Young and Daly say") {
  const model::ModelConfig config = test::qwen3_config();
  const RunShape shape = run_shape(128, 8);  // 16 nodes
  const CheckpointInterval interval =
      checkpoint_interval(config, shape, test::round_machine(), 16.0 * 86400.0);
  CHECK(interval.mtbf_s == Approx(86400.0));
  CHECK(interval.save_s ==
        Approx(12.0 * static_cast<double>(num_parameters(config)) / (16.0 * 1e10)));
  CHECK(interval.young_s == Approx(std::sqrt(2.0 * interval.save_s * 86400.0)));
  // For short saves the two differ by the save itself and little else.
  CHECK(interval.daly_s == Approx(interval.young_s - interval.save_s).epsilon(0.01));
  CHECK(interval.lost == Approx(std::sqrt(2.0 * interval.save_s / 86400.0)).epsilon(0.02));
  // Daly's interval loses less than others.
  const auto lost = [&](double every_s) {
    const double m = interval.mtbf_s, d = interval.save_s;
    return 1.0 - every_s / (m * std::expm1((every_s + d) / m));
  };
  CHECK(interval.lost <= lost(1.2 * interval.daly_s));
  CHECK(interval.lost <= lost(0.8 * interval.daly_s));
  Machine slow = test::round_machine();
  slow.file_system_bytes_per_s = Figure::published(1e9, "test");
  CHECK(checkpoint_interval(config, shape, slow, 86400.0).save_s > interval.save_s);
}

TEST_CASE("Times are told in units that can be read") {
  CHECK(describe_seconds(1.5e-6) == "1.5 us");
  CHECK(describe_seconds(0.25) == "250 ms");
  CHECK(describe_seconds(7200.0) == "2.0 h");
  const StepTime time = plan_time(test::qwen3_config(), run_shape(64, 8), test::round_machine(),
                                  Algorithm::hierarchical);
  CHECK_THAT(describe(time),
             Contains("expert backward") && Contains("bound by") && Contains("TFLOP/s per rank"));
}

}  // namespace tessera::study
