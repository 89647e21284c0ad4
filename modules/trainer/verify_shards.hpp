// SPDX-License-Identifier: Apache-2.0
// The proof after a load: nothing was lost, doubled, exchanged or changed between the file and the
// shards.
#pragma once

#include "tessera/trainer/model_state.hpp"
#include "unit_parts.hpp"

namespace tessera::trainer {

/// Of one load. What lies in the shards when everything has been loaded is compared with the
/// fingerprints that the file states or, where it states none, with what was read from it.
class ShardProof {
 public:
  /// `model` must outlive it. local.
  explicit ShardProof(const ModelSource& model);

  /// Where the load sums what it reads, before that goes anywhere; null if the file states
  /// fingerprints. local.
  checkpoint::FingerprintTable* read() { return is_stated_ ? nullptr : &read_; }
  /// Hashes what lies in the shard of a unit. local.
  void add(const UnitParts& stored, std::span<const float> shard);
  /// Every element must be in exactly one shard, with the value that the file has. Throws
  /// Error::format or Error::internal, alike on all ranks, naming tensor and expert. One
  /// all-reduce; collective over world.
  void require(const comm::Communicator& world);

 private:
  const ModelSource& model_;
  bool is_stated_;
  checkpoint::FingerprintTable read_, held_;
};

}  // namespace tessera::trainer
