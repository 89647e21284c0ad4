// SPDX-License-Identifier: Apache-2.0
// The proof after a load: nothing was lost, doubled or exchanged between the file and the shards.
#pragma once

#include "tessera/trainer/model_state.hpp"

namespace tessera::trainer {

/// Hashes all shards and compares, for each tensor and each expert in it, with what was `read` from
/// the file (this rank's part) and, if the file states its fingerprints, with those. Every element
/// must be in exactly one shard. Throws Error::format, alike on all ranks, naming tensor and
/// expert. One all-reduce; collective over grid.world().
template <class T>
void verify_shards(const comm::ProcessGrid& grid, const ModelSource& model,
                   const zero3::ParameterStore<T>& store, checkpoint::FingerprintTable read);

}  // namespace tessera::trainer
