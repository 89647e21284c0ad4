// SPDX-License-Identifier: Apache-2.0
// The proof after a load: nothing was lost, doubled or exchanged between the file and the shards.
#pragma once

#include "tessera/trainer/model_state.hpp"

namespace tessera::trainer {

/// This rank's parts of the sums that a load formed on its way.
struct LoadedTensors {
  checkpoint::FingerprintTable read;    ///< as the ranks that read them had them
  checkpoint::FingerprintTable placed;  ///< as their owners' shards have them
};

/// Compares, for each tensor and each expert in it, what the shards have with what was read and, if
/// the file states its fingerprints, with those. Every element must be in exactly one shard. Throws
/// Error::format, alike on all ranks, naming tensor and expert. One all-reduce; collective over
/// grid.world().
void verify_shards(const comm::ProcessGrid& grid, const ModelSource& model, LoadedTensors loaded);

}  // namespace tessera::trainer
