// SPDX-License-Identifier: Apache-2.0
// Carries a whole model from a source to whoever writes it again, in portions that all ranks read
// together in bounded memory, and proves that what was handed on is what the files have.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "comm/process_grid.hpp"
#include "tessera/checkpoint/fingerprint.hpp"
#include "tessera/checkpoint/source.hpp"

namespace tessera::checkpoint {

/// What all ranks have of some parameters at one time.
struct Portion {
  std::span<const Parameter> parameters;  ///< the same on all ranks
  std::span<const Slice> slices;          ///< this rank's
  std::span<const float> shard;           ///< their values
  const ScaleShards& scales;              ///< of those that are MXFP4
};
/// Called on all ranks with the same parameters; may be collective.
using PortionConsumer = std::function<void(const Portion&)>;
/// Called on all ranks after each portion.
using CopyProgress = std::function<void(std::int64_t num_done, std::int64_t num_portions)>;

struct CopyReport {
  LoadReport load;
  FingerprintTable fingerprints;  ///< of the parameters, summed; empty without verification
};

/// Reads all of `parameters`, which the source has, in their order, and hands them on. With
/// `verify` throws after the last portion, alike on all ranks, naming the first tensor and expert:
/// Error::format where what was read differs from the fingerprints that a Tessera file states,
/// Error::internal where what was handed on differs from what was read. collective over
/// grid.world(); errors are agreed.
CopyReport copy_parameters(const comm::ProcessGrid& grid, Source& source,
                           std::span<const Parameter> parameters, const PortionConsumer& consumer,
                           bool verify, const CopyProgress& progress = {});

/// What copy_parameters() would do on one rank.
struct CopyPlan {
  std::int64_t read_bytes = 0;    ///< from files (tensors that are exchanged: about)
  std::int64_t memory_bytes = 0;  ///< the largest portion, its scales and the reading buffer
};
/// Of each of `num_ranks` ranks, from headers alone. local.
std::vector<CopyPlan> plan_copy(const Source& source, std::span<const Parameter> parameters,
                                int num_ranks);

}  // namespace tessera::checkpoint
