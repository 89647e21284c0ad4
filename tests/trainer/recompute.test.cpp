// SPDX-License-Identifier: Apache-2.0
// --recompute changes what is kept, never what comes out: loss and every gradient are the same bit
// for bit on every grid, for each kind of attention and second half, in both types.
#include <catch2/catch.hpp>
#include <numeric>
#include <tessera/trainer/batch_reader.hpp>
#include <tessera/trainer/model_state.hpp>
#include <tessera/trainer/train_step.hpp>

#include "support/collective_check.hpp"

namespace tessera::trainer {
namespace {

using model::Recompute;

std::vector<int> expert_axes() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> axes;
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert == 0) axes.push_back(expert);
  }
  return axes;
}

struct Case {
  const char* family;  ///< a directory of tests/golden
  double aux_coefficient;
  std::int64_t micro_batch;
};

/// What one mode gives.
struct Outcome {
  StepOutcome step;
  std::vector<float> gradient;  ///< this rank's, one unit after the other
  bool has_tokens = false;      ///< this rank
  std::int64_t peak_bytes = 0;  ///< of what a pass keeps and of its temporaries
};

template <class T>
Outcome compute(int expert, const Case& test, Recompute recompute) {
  const auto path = std::filesystem::path(TESSERA_GOLDEN_DIRECTORY) / test.family;
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
  ModelSource source = open_model(grid.world(), path, {});
  zero3::ParameterStore<T> store = make_store<T>(grid, source.config);
  load_parameters(grid, source, store, {}, Verify::no);
  model::Transformer<T> model(grid, source.config, store, recompute);
  model.pool().watch();
  const TokenData data = TokenData::open(grid.world(), path / "tokens.npy", {});
  const BatchReader reader(grid.world(), data, source.config.vocab_size, test.micro_batch);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(data.num_sequences()));
  std::iota(rows.begin(), rows.end(), 0);
  const StepBatches read = reader.read(rows);
  Outcome outcome;
  outcome.step = compute_gradient(grid, model, store, std::span<const model::Batch>(read.batches),
                                  test.aux_coefficient);
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const auto& gradient = store.unit(i).gradient();
    outcome.gradient.insert(outcome.gradient.end(), gradient.data(),
                            gradient.data() + gradient.size());
  }
  outcome.has_tokens = read.batches.front().num_tokens() > 0;
  outcome.peak_bytes = model.pool().peak_bytes();
  return outcome;
}

template <class T>
void check_modes(const Case& test) {
  for (const int expert : expert_axes()) {
    const Outcome none = compute<T>(expert, test, Recompute::none);
    for (const Recompute recompute : {Recompute::attention, Recompute::layer}) {
      CAPTURE(test.family, expert, to_string(recompute));
      const Outcome again = compute<T>(expert, test, recompute);
      CHECK(again.step.loss == none.step.loss);
      CHECK(again.step.aux_loss == none.step.aux_loss);
      CHECK(again.step.expert_load == none.step.expert_load);
      CHECK(again.gradient == none.gradient);
      if (none.has_tokens) CHECK(again.peak_bytes < none.peak_bytes);
    }
  }
}

}  // namespace

TEST_CASE("Computing again gives the same loss and gradients bit for bit, in less memory") {
  const Case test =
      GENERATE(Case{"small", 0.0, 0}, Case{"small", 0.5, 1}, Case{"qwen3_moe", 0.1, 2},
               Case{"olmoe", 0.0, 1}, Case{"deepseek_v3", 0.0, 1}, Case{"llama", 0.0, 2});
  check_modes<float>(test);
  check_modes<bf16>(test);
}

TEST_CASE("A mode of recomputing that does not exist is refused") {
  CHECK(model::parse_recompute("layer") == Recompute::layer);
  CHECK_THROWS_WITH(model::parse_recompute("full"), Catch::Contains("none, attention or layer"));
}

}  // namespace tessera::trainer
