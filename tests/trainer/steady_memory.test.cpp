// SPDX-License-Identifier: Apache-2.0
// A steady step allocates no array: counted by Kokkos' own callback, which sees every view that
// owns memory.
#include <Kokkos_Core.hpp>
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <tessera/trainer/model_state.hpp>
#include <tessera/trainer/train_step.hpp>

#include "support/collective_check.hpp"

namespace tessera::trainer {
namespace {

using model::Recompute;

std::vector<std::string> allocated;  ///< labels, since the test last cleared it

void note_allocation(Kokkos::Tools::SpaceHandle, const char* label, const void*, std::uint64_t) {
  allocated.push_back(label);
}

std::vector<int> expert_axes() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> axes;
  for (int expert = 1; expert <= size; ++expert) {
    if (size % expert == 0) axes.push_back(expert);
  }
  return axes;
}

/// Other tokens in each step, so that other experts are chosen.
model::Batch random_batch(std::mt19937_64& random, std::int64_t vocab_size) {
  constexpr std::int64_t sequences = 2, length = 48;
  std::uniform_int_distribution<std::int64_t> token(0, vocab_size - 1);
  std::vector<std::int64_t> tokens(sequences * length);
  for (std::int64_t& each : tokens) each = token(random);
  return model::make_batch(sequences, length, tokens, tokens, vocab_size);
}

template <class T>
void check_steps(const char* family, Recompute recompute, double aux_coefficient) {
  const auto path = std::filesystem::path(TESSERA_GOLDEN_DIRECTORY) / family;
  for (const int expert : expert_axes()) {
    CAPTURE(family, to_string(recompute), expert);
    const comm::ProcessGrid grid(MPI_COMM_WORLD, {expert});
    ModelSource source = open_model(grid.world(), path, {});
    zero3::ParameterStore<T> store = make_store<T>(grid, source.config);
    load_parameters(grid, source, store, {}, Verify::no);
    model::Transformer<T> model(grid, source.config, store, recompute);
    std::mt19937_64 random(static_cast<std::uint64_t>(grid.world().rank()));
    StepOptions step;
    step.max_grad_norm = 1.0;
    step.aux_coefficient = aux_coefficient;
    std::int64_t reserved = 0;
    for (step.optimizer_step = 1; step.optimizer_step <= 5; ++step.optimizer_step) {
      const kernel::PoolScope scope(model.pool());
      allocated.clear();
      std::vector<model::Batch> batches;
      for (int i = 0; i < 2; ++i) batches.push_back(random_batch(random, source.config.vocab_size));
      train_step(grid, model, store, batches, {}, step);
      if (step.optimizer_step < 3) continue;
      CHECK(allocated == std::vector<std::string>());
      if (step.optimizer_step > 3) CHECK(model.pool().reserved_bytes() == reserved);
      reserved = model.pool().reserved_bytes();
    }
  }
}

}  // namespace

TEST_CASE("From the third step on nothing is allocated, whichever experts the tokens choose") {
  Kokkos::Tools::Experimental::set_allocate_data_callback(note_allocation);
  const Recompute recompute = GENERATE(Recompute::none, Recompute::attention, Recompute::layer);
  check_steps<float>("small", recompute, 0.1);
  check_steps<bf16>("small", recompute, 0.0);
  check_steps<float>("deepseek_v3", recompute, 0.0);
  check_steps<bf16>("qwen3_moe", recompute, 0.1);
  check_steps<float>("olmoe", recompute, 0.0);
  check_steps<float>("llama", recompute, 0.0);
  Kokkos::Tools::Experimental::set_allocate_data_callback(nullptr);
}

}  // namespace tessera::trainer
