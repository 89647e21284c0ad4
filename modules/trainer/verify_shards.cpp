// SPDX-License-Identifier: Apache-2.0
#include "verify_shards.hpp"

#include <array>

#include "base/error.hpp"

namespace tessera::trainer {
namespace {

using checkpoint::FingerprintTable;
using checkpoint::TensorFingerprint;

template <class T>
FingerprintTable hash_shards(const ModelSource& model, const zero3::ParameterStore<T>& store) {
  FingerprintTable held;
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const zero3::Unit& unit = store.unit(i);
    for (const Parameter& parameter : unit.parameters()) {
      if (!model.has(parameter)) continue;
      held.expect(parameter.name, parameter.is_expert ? parameter.shape[0] : 1);
    }
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), unit.master());
    for (const Slice& slice : unit.slices()) {
      if (!model.has(*slice.parameter)) continue;
      held.add(*slice.parameter, slice.begin,
               std::span<const float>(host.data() + slice.shard_offset,
                                      static_cast<std::size_t>(slice.size())));
    }
  }
  return held;
}

std::string expert_text(const Parameter& parameter, std::size_t expert) {
  return parameter.is_expert ? fmt::format(", expert {}", expert) : "";
}

void require_as_read(const ModelSource& model, const Parameter& parameter,
                     const TensorFingerprint& read, const TensorFingerprint& held) {
  const std::int64_t expected = parameter.size() / std::ssize(held.experts);
  for (std::size_t e = 0; e < held.experts.size(); ++e) {
    if (held.num_elements[e] != expected) {
      fail(
          ErrorKind::internal,
          "'{}'{}: the ranks hold {} elements together, not {} (each must be in exactly one shard)",
          parameter.name, expert_text(parameter, e), held.num_elements[e], expected);
    }
    if (held.experts[e] == read.experts[e]) continue;
    fail(ErrorKind::internal,
         "'{}'{}: the shards have fingerprint {}, what was read from {} has {} (the weights in "
         "memory are not those of the file)",
         parameter.name, expert_text(parameter, e), to_string(held.experts[e]),
         model.source->path().string(), to_string(read.experts[e]));
  }
}

void require_as_stated(const ModelSource& model, const Parameter& parameter,
                       const TensorFingerprint& stated, const TensorFingerprint& held) {
  for (std::size_t e = 0; e < held.experts.size(); ++e) {
    if (held.experts[e] == stated.experts[e]) continue;
    fail(ErrorKind::format,
         "{}: '{}'{} has fingerprint {} but was written with {} (the file was damaged or changed "
         "since); `tessera verify` lists all that differs, an earlier checkpoint may be whole",
         model.source->path().string(), parameter.name, expert_text(parameter, e),
         to_string(held.experts[e]), to_string(stated.experts[e]));
  }
}

}  // namespace

template <class T>
void verify_shards(const comm::ProcessGrid& grid, const ModelSource& model,
                   const zero3::ParameterStore<T>& store, FingerprintTable read) {
  FingerprintTable held = hash_shards(model, store);
  // All ranks must sum the same tensors, also those of which this one read nothing.
  for (const auto& [name, entry] : held.tensors()) read.expect(name, std::ssize(entry.experts));
  const std::array tables{&read, &held};
  FingerprintTable::sum(grid.world(), tables);
  const auto* file = dynamic_cast<const checkpoint::Hdf5Source*>(model.source.get());
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    for (const Parameter& parameter : store.unit(i).parameters()) {
      const TensorFingerprint* of_shards = held.find(parameter.name);
      if (of_shards == nullptr) continue;
      const auto* stated =
          file == nullptr ? nullptr : file->fingerprint("parameters", parameter.name);
      if (stated != nullptr) require_as_stated(model, parameter, *stated, *of_shards);
      require_as_read(model, parameter, *read.find(parameter.name), *of_shards);
    }
  }
}

template void verify_shards(const comm::ProcessGrid&, const ModelSource&,
                            const zero3::ParameterStore<float>&, FingerprintTable);
template void verify_shards(const comm::ProcessGrid&, const ModelSource&,
                            const zero3::ParameterStore<bf16>&, FingerprintTable);

}  // namespace tessera::trainer
