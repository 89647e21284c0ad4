// SPDX-License-Identifier: Apache-2.0
#include "kernel/optimizer.hpp"

#include <tessera/zero3/optimizer.hpp>

#include "base/error.hpp"
#include "kernel/rows.hpp"

namespace tessera::zero3 {
namespace {

template <class V>
V part(const V& shard, const Slice& slice) {
  if (shard.extent(0) == 0) return {};
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
  store.open_masters();
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    Unit& unit = store.unit(i);
    if (options.kind == OptimizerKind::adamw) unit.allocate_moments();
    const kernel::Vector<T> working_shard = store.working_shard(i);
    for (const Slice& slice : unit.slices()) {
      const kernel::Vector<T> copy = part(working_shard, slice);
      const kernel::Vector<float> master = part(unit.master(), slice);
      if (!slice.parameter->trainable) {
        if (copy.extent(0) > 0) kernel::convert<float, T>(execution, master, copy);
        continue;
      }
      const bool decays = options.decay_all || slice.parameter->weight_decay;
      const double decay = decays ? options.weight_decay : 0.0;
      const kernel::Vector<float> gradient = part(unit.gradient(), slice);
      if (options.kind == OptimizerKind::sgd) {
        kernel::sgd<T>(execution, learning_rate, decay, gradient_scale, gradient, master, copy);
        continue;
      }
      const kernel::AdamwStep adam{learning_rate, options.beta1, options.beta2, options.epsilon,
                                   decay,         step,          gradient_scale};
      kernel::adamw<T>(execution, adam, gradient, master, part(unit.exp_avg(), slice),
                       part(unit.exp_avg_sq(), slice), copy);
    }
    store.set_written(i);
  }
  execution.fence();
}

template void optimizer_step(ParameterStore<float>&, const OptimizerOptions&, double, std::int64_t,
                             double);
template void optimizer_step(ParameterStore<bf16>&, const OptimizerOptions&, double, std::int64_t,
                             double);

}  // namespace tessera::zero3
