// SPDX-License-Identifier: Apache-2.0
#include "verify_shards.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"

namespace tessera::trainer {
namespace {

using checkpoint::FingerprintTable;
using checkpoint::SumKind;
using checkpoint::TensorFingerprint;

std::vector<Parameter> stored_parameters(const ModelSource& model) {
  std::vector<Parameter> parameters = all_parameters(model.units);
  std::erase_if(parameters, [&](const Parameter& parameter) { return !model.has(parameter); });
  return parameters;
}

bool states_all(const ModelSource& model) {
  const std::vector<Parameter> parameters = stored_parameters(model);
  return std::ranges::all_of(parameters, [&](const Parameter& parameter) {
    return model.source->stated_fingerprint(parameter) != nullptr;
  });
}

std::string expert_text(const Parameter& parameter, std::size_t expert) {
  return parameter.is_expert ? fmt::format(", expert {}", expert) : "";
}

void require_held_once(const Parameter& parameter, const TensorFingerprint& held) {
  const std::int64_t expected = parameter.size() / std::ssize(held.experts);
  for (std::size_t e = 0; e < held.experts.size(); ++e) {
    if (held.num_elements[e] == expected) continue;
    fail(ErrorKind::internal,
         "'{}'{}: the ranks hold {} elements together, not {} (each must be in exactly one shard)",
         parameter.name, expert_text(parameter, e), held.num_elements[e], expected);
  }
}

void require_as_read(const std::string& path, const Parameter& parameter,
                     const TensorFingerprint& read, const TensorFingerprint& held) {
  for (std::size_t e = 0; e < held.experts.size(); ++e) {
    if (held.experts[e] == read.experts[e]) continue;
    fail(ErrorKind::internal,
         "'{}'{}: the values in the shards have the sum {}, those read from {} had {} (the weights "
         "in memory are not those of the file)",
         parameter.name, expert_text(parameter, e), to_string(held.experts[e]), path,
         to_string(read.experts[e]));
  }
}

void require_as_stated(const std::string& path, const Parameter& parameter,
                       const TensorFingerprint& stated, const TensorFingerprint& held) {
  for (std::size_t e = 0; e < held.experts.size(); ++e) {
    if (held.experts[e] == stated.experts[e]) continue;
    fail(ErrorKind::format,
         "{}: '{}'{} has fingerprint {} but was written with {} (the file was damaged or changed "
         "since, or the memory that it was loaded to); `tessera verify` lists all that differs in "
         "the file, an earlier checkpoint may be whole",
         path, parameter.name, expert_text(parameter, e), to_string(held.experts[e]),
         to_string(stated.experts[e]));
  }
}

}  // namespace

ShardProof::ShardProof(const ModelSource& model)
    : model_(model),
      is_stated_(states_all(model)),
      read_(SumKind::values),
      held_(is_stated_ ? SumKind::fingerprints : SumKind::values) {
  // All ranks must sum the same tensors, also those of which this one has nothing.
  for (const Parameter& parameter : stored_parameters(model)) {
    const std::int64_t num_experts = parameter.is_expert ? parameter.shape[0] : 1;
    held_.expect(parameter.name, num_experts);
    if (!is_stated_) read_.expect(parameter.name, num_experts);
  }
}

void ShardProof::add(const UnitParts& stored, std::span<const float> shard) {
  for (const Slice& slice : stored.slices)
    held_.add(*slice.parameter, slice.begin,
              shard.subspan(static_cast<std::size_t>(slice.shard_offset),
                            static_cast<std::size_t>(slice.size())));
}

void ShardProof::require(const comm::Communicator& world) {
  const std::array tables{&read_, &held_};
  FingerprintTable::sum(world, tables);
  const std::string path = model_.source->path().string();
  for (const Parameter& parameter : stored_parameters(model_)) {
    const TensorFingerprint& held = *held_.find(parameter.name);
    if (is_stated_)
      require_as_stated(path, parameter, *model_.source->stated_fingerprint(parameter), held);
    require_held_once(parameter, held);
    if (!is_stated_) require_as_read(path, parameter, *read_.find(parameter.name), held);
  }
}

}  // namespace tessera::trainer
