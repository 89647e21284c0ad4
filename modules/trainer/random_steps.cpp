// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numbers>
#include <random>
#include <tessera/trainer/random_steps.hpp>

#include "base/block_distribution.hpp"
#include "comm/watchdog.hpp"
#include "initialize.hpp"
#include "tessera/model/parameter_units.hpp"
#include "tessera/trainer/model_state.hpp"
#include "tessera/trainer/train_step.hpp"

namespace tessera::trainer {
namespace {

/// A router whose choices follow Zipf's law: logits log(n^-exponent) of the n-th expert plus a
/// noise of Gumbel's spread, pi / sqrt(6), with which a choice has just that probability (Luce's
/// choice, up to the noise being normal here). norm(x) has components of mean square 1.
void skew_router(const Slice& slice, double exponent, const model::ModelConfig& config,
                 std::span<float> shard) {
  const std::string& name = slice.parameter->name;
  const auto values = shard.subspan(static_cast<std::size_t>(slice.shard_offset),
                                    static_cast<std::size_t>(slice.size()));
  if (name.ends_with(config.router.name + ".weight")) {
    const double spread =
        std::numbers::pi / std::sqrt(6.0 * static_cast<double>(config.hidden_size));
    for (float& value : values) value *= static_cast<float>(spread / config.initializer_range);
  }
  if (!name.ends_with(config.router.name + ".bias")) return;
  const std::int64_t first = static_cast<std::int64_t>(std::hash<std::string>{}(name) % 1009);
  for (std::int64_t i = slice.begin; i < slice.end; ++i) {
    const std::int64_t place = (i + first) % config.num_experts;
    values[static_cast<std::size_t>(i - slice.begin)] =
        static_cast<float>(-exponent * std::log(static_cast<double>(place + 1)));
  }
}

bool has_router_bias(const model::ModelConfig& config) {
  for (const auto& unit : model::parameter_units(config)) {
    for (const Parameter& parameter : unit.parameters) {
      if (parameter.name.ends_with(config.router.name + ".bias")) return true;
    }
  }
  return false;
}

template <class T>
void initialize_all(zero3::ParameterStore<T>& store, const model::ModelConfig& config,
                    const RandomSteps& options) {
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    zero3::Unit& unit = store.unit(i);
    const auto host = kernel::host_mirror(unit.master());
    for (const Slice& slice : unit.slices()) {
      const std::span<float> shard(host.data(), host.size());
      initialize(slice, checkpoint::Initialisation::as_model, config.initializer_range, shard);
      if (options.zipf) skew_router(slice, *options.zipf, config, shard);
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
  if (options.zipf && !has_router_bias(config)) {
    fail(ErrorKind::usage,
         "routers of {} have no biases, so no skew can be given to them; take gpt_oss",
         config.family);
  }
  zero3::ParameterStore<T> store = make_store<T>(grid, config);
  initialize_all(store, config, options);
  model::Transformer<T> model(grid, config, store, options.recompute);
  const model::Batch batch = random_batch(grid.world(), config.vocab_size, options);
  StepOptions step;
  step.learning_rate = 1e-4;
  step.max_grad_norm = 1.0;
  grid.world().barrier("start of the clocks");
  PhaseTimer timer([] { Kokkos::fence(); });
  StepTraffic traffic(grid);
  std::vector<std::int64_t> expert_choices;
  for (std::int64_t i = 0; i <= options.num_steps; ++i) {
    comm::set_current_step(i + 1);
    timer.begin_step();
    traffic.begin_step();
    const StepOutcome outcome = train_step(grid, model, store, std::span(&batch, 1), {}, step);
    if (outcome.updated) ++step.optimizer_step;
    expert_choices = outcome.expert_choices;
    timer.end_step();
    traffic.end_step();
  }
  StepProfile profile = step_profile(grid.world(), timer, traffic);
  profile.expert_choices = std::move(expert_choices);
  return profile;
}

}  // namespace

StepProfile profile_random_steps(const comm::ProcessGrid& grid, const model::ModelConfig& config,
                                 const RandomSteps& options) {
  return options.dtype == Dtype::bf16 ? run<bf16>(grid, config, options)
                                      : run<float>(grid, config, options);
}

}  // namespace tessera::trainer
