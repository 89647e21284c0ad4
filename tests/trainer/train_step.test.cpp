// SPDX-License-Identifier: Apache-2.0
// What holds for every training step: micro-steps add up to one batch, a bad gradient or a failing
// rank drops the step on all ranks alike, and no gathered memory stays behind.
#include <catch2/catch.hpp>
#include <limits>
#include <tessera/trainer/batch_reader.hpp>
#include <tessera/trainer/model_state.hpp>
#include <tessera/trainer/train_step.hpp>

#include "support/collective_check.hpp"

namespace tessera::trainer {
namespace {

const std::filesystem::path model_path = std::filesystem::path(TESSERA_GOLDEN_DIRECTORY) / "small";

std::vector<int> expert_axes() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> axes;
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert == 0) axes.push_back(expert);
  }
  return axes;
}

/// A loaded model on one grid, with its four rows of tokens.
struct Fixture {
  comm::ProcessGrid grid;
  ModelSource source;
  zero3::ParameterStore<float> store;
  model::Transformer<float> model;
  TokenData data;
  zero3::OptimizerOptions optimizer;
  StepOptions step;

  explicit Fixture(int expert)
      : grid(MPI_COMM_WORLD, {expert}),
        source(open_model(grid.world(), model_path, {})),
        store(make_store<float>(grid, source.config)),
        model(grid, source.config, store),
        data(TokenData::open(grid.world(), model_path / "tokens.npy", {})) {
    load_parameters(grid, source, store);
    optimizer.kind = zero3::OptimizerKind::sgd;
    step.learning_rate = 0.1;
  }

  StepOutcome run(std::int64_t micro_batch, bool local_failure = false) {
    const std::vector<std::int64_t> rows{0, 1, 2, 3};
    const BatchReader reader(grid.world(), data, source.config.vocab_size, micro_batch);
    const StepBatches read = reader.read(rows);
    return train_step(grid, model, store, std::span<const model::Batch>(read.batches), optimizer,
                      step, local_failure);
  }
  /// This rank's master weights, one after the other.
  std::vector<float> weights() const {
    std::vector<float> all;
    for (std::size_t i = 0; i < store.num_units(); ++i) {
      const auto& master = store.unit(i).master();
      all.insert(all.end(), master.data(), master.data() + master.size());
    }
    return all;
  }
};

}  // namespace

TEST_CASE(
    "Micro-steps of one sequence give the gradient of the whole batch, auxiliary loss included") {
  const double coefficient = GENERATE(0.0, 0.5);
  for (const int expert : expert_axes()) {
    Fixture whole(expert), parts(expert);
    whole.step.aux_coefficient = parts.step.aux_coefficient = coefficient;
    const StepOutcome a = whole.run(0), b = parts.run(1);
    CHECK(b.aux_loss == Approx(a.aux_loss).epsilon(1e-6));
    CHECK(a.num_targets == b.num_targets);
    CHECK(b.loss == Approx(a.loss).epsilon(1e-6));
    CHECK(b.grad_norm == Approx(a.grad_norm).epsilon(1e-5));
    CHECK_CLOSE(parts.weights(), whole.weights(), 1e-5, 1e-6);
  }
}

TEST_CASE("A step leaves no gathered parameter and no whole gradient in use") {
  for (const int expert : expert_axes()) {
    Fixture fixture(expert);
    fixture.step.learning_rate = 0.0;  // so that the experts' rows stay
    fixture.run(0);
    fixture.run(0);
    const std::int64_t reserved = fixture.store.pool().arena()->reserved_bytes();
    CHECK(fixture.store.pool().bytes_in_use() == 0);
    fixture.run(0);
    CHECK(fixture.store.pool().arena()->reserved_bytes() == reserved);  // a steady step grows none
  }
}

TEST_CASE("NaN in a gradient drops the step on all ranks, and the next one goes on") {
  for (const int expert : expert_axes()) {
    Fixture fixture(expert);
    const bool spoils = fixture.grid.world().rank() == fixture.grid.world().size() - 1;
    float& weight = fixture.store.unit(1).master()(0);
    const float value = weight;
    if (spoils) weight = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> before = fixture.weights();
    const StepOutcome dropped = fixture.run(0);
    CHECK(!dropped.updated);
    CHECK(std::isnan(dropped.grad_norm));
    if (spoils) weight = value;
    std::vector<float> untouched = before;
    if (spoils) untouched = fixture.weights();
    CHECK(fixture.weights() == untouched);
    CHECK(fixture.run(0).updated);
  }
}

TEST_CASE("A rank that failed takes part, and all ranks drop the step") {
  for (const int expert : expert_axes()) {
    Fixture fixture(expert);
    const std::vector<float> before = fixture.weights();
    const StepOutcome outcome = fixture.run(0, fixture.grid.world().rank() == 0);
    CHECK(!outcome.updated);
    CHECK(fixture.weights() == before);
  }
}

TEST_CASE("Without any target the loss is 0 and no step is taken") {
  for (const int expert : expert_axes()) {
    Fixture fixture(expert);
    const std::vector<std::int64_t> tokens(24, 1), labels(24, -100);
    const bool has_row = fixture.grid.world().rank() == 0;
    const model::Batch batch =
        model::make_batch(has_row, 24, std::span(tokens).first(has_row * 24),
                          std::span(labels).first(has_row * 24), fixture.source.config.vocab_size);
    const StepOutcome outcome = train_step(fixture.grid, fixture.model, fixture.store,
                                           std::span(&batch, 1), fixture.optimizer, fixture.step);
    CHECK(outcome.loss == 0.0);
    CHECK(outcome.num_targets == 0);
    CHECK(!outcome.updated);
  }
}

TEST_CASE("Gradients that travel in bf16 stay near those in f32") {
  for (const int expert : expert_axes()) {
    Fixture fixture(expert);
    auto narrow =
        make_store<float>(fixture.grid, fixture.source.config, zero3::GradientTransport::bf16);
    load_parameters(fixture.grid, fixture.source, narrow);
    model::Transformer<float> model(fixture.grid, fixture.source.config, narrow);
    const BatchReader reader(fixture.grid.world(), fixture.data, fixture.source.config.vocab_size,
                             0);
    const StepBatches read = reader.read(std::vector<std::int64_t>{0, 1, 2, 3});
    const StepOutcome outcome =
        train_step(fixture.grid, model, narrow, std::span<const model::Batch>(read.batches),
                   fixture.optimizer, fixture.step);
    CHECK(outcome.grad_norm == Approx(fixture.run(0).grad_norm).epsilon(5e-3));
  }
}

}  // namespace tessera::trainer
