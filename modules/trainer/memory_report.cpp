// SPDX-License-Identifier: Apache-2.0
#include "memory_report.hpp"

#include <array>

#include "base/bytes.hpp"
#include "comm/devices.hpp"
#include "tessera/trainer/metrics.hpp"

namespace tessera::trainer {
namespace {

/// Where the kernels' arrays are.
struct Room {
  const char* where;
  std::int64_t free_bytes, total_bytes;
};
Room room() {
  if (const auto device = comm::device_memory()) {
    return {"the device's memory", device->free_bytes, device->total_bytes};
  }
  const HostMemory host = host_memory();
  return {"the node's memory", host.free_bytes, host.total_bytes};
}

/// Of what is there for good.
template <class T>
std::int64_t shard_bytes(const zero3::ParameterStore<T>& store) {
  std::size_t elements = 0;
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const zero3::Unit& unit = store.unit(i);
    elements += unit.master().size() + unit.gradient().size() + unit.exp_avg().size() +
                unit.exp_avg_sq().size();
  }
  return static_cast<std::int64_t>(elements * sizeof(float));
}

}  // namespace

template <class T>
std::string describe_memory(const comm::Communicator& world, const zero3::ParameterStore<T>& store,
                            const std::string& foretold) {
  const Room mine = room();
  std::array<std::int64_t, 2> most{shard_bytes(store), -mine.free_bytes};
  world.all_reduce("memory", std::span<std::int64_t>(most), comm::ReduceOp::max);
  return fmt::format("memory: parameters, gradients and optimizer take {}, {} of {} are free{}{}",
                     format_bytes(most[0]), format_bytes(-most[1]), mine.where,
                     foretold.empty() ? "" : "; ", foretold);
}

std::string describe_taken(const comm::Communicator& world, const kernel::Arena& arena,
                           double mib_before) {
  constexpr double mib = 1024.0 * 1024.0;
  const double taken =
      world.all_reduce_value("memory", proportional_set_mib() - mib_before, comm::ReduceOp::max);
  return fmt::format(
      "memory: the run took {:.1f} MiB on the rank with most, beside {:.1f} MiB of the program; a "
      "step has {:.1f} MiB at once, {:.1f} MiB are held for it",
      taken, mib_before, static_cast<double>(arena.peak_bytes()) / mib,
      static_cast<double>(arena.reserved_bytes()) / mib);
}

template <class T>
OutOfMemory with_report(const std::string& error, const zero3::ParameterStore<T>& store,
                        const std::string& foretold) {
  const Room mine = room();
  const kernel::Arena& arena = *store.pool().arena();
  return OutOfMemory(fmt::format(
      "{}\n"
      "  here: {} of {} of {} are free; parameters, gradients and optimizer take {}; {} are held "
      "for a step, {} of them in use{}{}\n"
      "  A smaller --micro-batch, --recompute layer and more ranks need less: `tessera plan` tells "
      "how much.",
      error, format_bytes(mine.free_bytes), format_bytes(mine.total_bytes), mine.where,
      format_bytes(shard_bytes(store)), format_bytes(arena.reserved_bytes()),
      format_bytes(arena.used_bytes()), foretold.empty() ? "" : "\n  ", foretold));
}

#define TESSERA_INSTANTIATE(T)                                                                     \
  template std::string describe_memory(const comm::Communicator&, const zero3::ParameterStore<T>&, \
                                       const std::string&);                                        \
  template OutOfMemory with_report(const std::string&, const zero3::ParameterStore<T>&,            \
                                   const std::string&);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::trainer
