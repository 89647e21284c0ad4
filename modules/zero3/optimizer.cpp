// SPDX-License-Identifier: Apache-2.0
#include "kernel/optimizer.hpp"

#include <tessera/zero3/optimizer.hpp>

#include "base/error.hpp"

namespace tessera::zero3 {
namespace {

kernel::Vector<float> part(const kernel::Vector<float>& shard, const Slice& slice) {
  return Kokkos::subview(shard,
                         Kokkos::make_pair(slice.shard_offset, slice.shard_offset + slice.size()));
}

}  // namespace

const char* to_string(OptimizerKind kind) { return kind == OptimizerKind::adamw ? "adamw" : "sgd"; }

OptimizerKind optimizer_kind(const std::string& name) {
  if (name == "adamw") return OptimizerKind::adamw;
  if (name == "sgd") return OptimizerKind::sgd;
  fail(ErrorKind::usage, "optimizer '{}' is unknown; use adamw or sgd", name);
}

template <class T>
void optimizer_step(ParameterStore<T>& store, const OptimizerOptions& options, double learning_rate,
                    std::int64_t step, double gradient_scale) {
  const kernel::Execution execution;
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    Unit& unit = store.unit(i);
    if (options.kind == OptimizerKind::adamw) unit.allocate_moments();
    for (const Slice& slice : unit.slices()) {
      if (!slice.parameter->trainable) continue;
      const bool decays = options.decay_all || slice.parameter->weight_decay;
      const double decay = decays ? options.weight_decay : 0.0;
      const kernel::Vector<float> gradient = part(unit.gradient(), slice);
      const kernel::Vector<float> master = part(unit.master(), slice);
      if (options.kind == OptimizerKind::sgd) {
        kernel::sgd(execution, learning_rate, decay, gradient_scale, gradient, master);
        continue;
      }
      const kernel::AdamwStep adam{learning_rate, options.beta1, options.beta2, options.epsilon,
                                   decay,         step,          gradient_scale};
      kernel::adamw(execution, adam, gradient, master, part(unit.exp_avg(), slice),
                    part(unit.exp_avg_sq(), slice));
    }
  }
  execution.fence();
}

template void optimizer_step(ParameterStore<float>&, const OptimizerOptions&, double, std::int64_t,
                             double);
template void optimizer_step(ParameterStore<bf16>&, const OptimizerOptions&, double, std::int64_t,
                             double);

}  // namespace tessera::zero3
