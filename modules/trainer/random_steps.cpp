// SPDX-License-Identifier: Apache-2.0
#include <random>
#include <tessera/trainer/random_steps.hpp>

#include "base/block_distribution.hpp"
#include "comm/watchdog.hpp"
#include "initialize.hpp"
#include "tessera/trainer/model_state.hpp"
#include "tessera/trainer/train_step.hpp"

namespace tessera::trainer {
namespace {

template <class T>
void initialize_all(zero3::ParameterStore<T>& store, double standard_deviation) {
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    zero3::Unit& unit = store.unit(i);
    const auto host = kernel::host_mirror(unit.master());
    for (const Slice& slice : unit.slices()) {
      initialize(slice, checkpoint::Initialisation::as_model, standard_deviation,
                 std::span<float>(host.data(), host.size()));
    }
    Kokkos::deep_copy(unit.master(), host);
    unit.allocate_moments();
  }
}

/// This rank's sequences.
model::Batch random_batch(const comm::Communicator& world, std::int64_t vocab_size,
                          const RandomSteps& options) {
  const BlockDistribution rows{options.batch, world.size()};
  const std::int64_t count = rows.count(world.rank());
  std::mt19937_64 random(static_cast<std::uint64_t>(world.rank()));
  std::uniform_int_distribution<std::int64_t> token(0, vocab_size - 1);
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(count * options.length));
  for (std::int64_t& each : tokens) each = token(random);
  return model::make_batch(count, options.length, tokens, tokens, vocab_size);
}

template <class T>
StepProfile run(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                const RandomSteps& options) {
  zero3::ParameterStore<T> store = make_store<T>(grid, config);
  initialize_all(store, config.initializer_range);
  model::Transformer<T> model(grid, config, store, options.recompute);
  const model::Batch batch = random_batch(grid.world(), config.vocab_size, options);
  StepOptions step;
  step.learning_rate = 1e-4;
  step.max_grad_norm = 1.0;
  grid.world().barrier("start of the clocks");
  PhaseTimer timer([] { Kokkos::fence(); });
  StepTraffic traffic(grid);
  for (std::int64_t i = 0; i <= options.num_steps; ++i) {
    comm::set_current_step(i + 1);
    timer.begin_step();
    traffic.begin_step();
    if (train_step(grid, model, store, std::span(&batch, 1), {}, step).updated) {
      ++step.optimizer_step;
    }
    timer.end_step();
    traffic.end_step();
  }
  return step_profile(grid.world(), timer, traffic);
}

}  // namespace

StepProfile profile_random_steps(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                                 const RandomSteps& options) {
  return options.dtype == Dtype::bf16 ? run<bf16>(grid, config, options)
                                      : run<float>(grid, config, options);
}

}  // namespace tessera::trainer
