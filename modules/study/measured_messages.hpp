// SPDX-License-Identifier: Apache-2.0
// What messages and collectives between ranks take.
#pragma once

#include "comm/process_grid.hpp"
#include "tessera/study/collective_time.hpp"
#include "tessera/study/machine.hpp"

namespace tessera::study {

/// The tiers that the grid's ranks have. Messages go both ways at once, as in collectives.
/// collective over grid.world().
struct MeasuredTiers {
  std::optional<Tier> node;
  std::optional<Tier> network;
};
MeasuredTiers measure_tiers(const comm::ProcessGrid& grid, int num_repeats);

/// Of all ranks of one node and, where there are several, of all ranks. collective over
/// grid.world().
std::vector<CollectiveTime> measure_collectives(const comm::ProcessGrid& grid,
                                                const std::vector<std::int64_t>& sizes_bytes,
                                                int num_repeats);

/// Of each repeat the slowest rank's. collective over world.
std::vector<double> slowest(const comm::Communicator& world, std::vector<double> samples);

}  // namespace tessera::study
