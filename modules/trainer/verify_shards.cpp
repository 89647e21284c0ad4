// SPDX-License-Identifier: Apache-2.0
#include "verify_shards.hpp"

#include <array>

#include "base/error.hpp"

namespace tessera::trainer {
namespace {

using checkpoint::FingerprintTable;
using checkpoint::TensorFingerprint;

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

void verify_shards(const comm::ProcessGrid& grid, const ModelSource& model, LoadedTensors loaded) {
  // All ranks must sum the same tensors, also those of which this one read nothing.
  for (const auto& [name, entry] : loaded.placed.tensors())
    loaded.read.expect(name, std::ssize(entry.experts));
  const std::array tables{&loaded.read, &loaded.placed};
  FingerprintTable::sum(grid.world(), tables);
  const auto* file = dynamic_cast<const checkpoint::Hdf5Source*>(model.source.get());
  for (const Parameter& parameter : all_parameters(model.units)) {
    if (!model.has(parameter)) continue;
    const TensorFingerprint& placed = *loaded.placed.find(parameter.name);
    const auto* stated =
        file == nullptr ? nullptr : file->fingerprint("parameters", parameter.name);
    if (stated != nullptr) require_as_stated(model, parameter, *stated, placed);
    require_as_read(model, parameter, *loaded.read.find(parameter.name), placed);
  }
}

}  // namespace tessera::trainer
