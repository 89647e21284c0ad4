// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <tessera/zero3/placement.hpp>

#include "base/error.hpp"

namespace tessera::zero3 {

Placement Placement::dense(const comm::ProcessGrid& grid) { return Placement(grid.world()); }

Placement Placement::expert(const comm::ProcessGrid& grid, std::int64_t num_experts) {
  const BlockDistribution blocks{num_experts, grid.expert().size()};
  const int rank = grid.expert().rank();
  return Placement(grid.replica(), ExpertRange{blocks.begin(rank), blocks.end(rank)});
}

void Placement::verify(const std::string& unit) const {
  if (!is_expert_) return;
  const std::array<std::int64_t, 2> mine{experts_.begin, experts_.end};
  std::vector<std::int64_t> all(2 * static_cast<std::size_t>(group_->size()));
  group_->all_gather("verify placement", std::span<const std::int64_t>(mine),
                     std::span<std::int64_t>(all));
  for (int rank = 1; rank < group_->size(); ++rank) {
    const ExpertRange theirs{all[2 * rank], all[2 * rank + 1]};
    if (theirs == ExpertRange{all[0], all[1]}) continue;
    fail(ErrorKind::config,
         "unit '{}' is placed on group '{}', where world rank {} holds experts [{}, {}) and world "
         "rank "
         "{} holds [{}, {}) (ZeRO-3 would take different experts for replicas and overwrite them); "
         "place experts over the ranks that hold the same ones: grid.replica()",
         unit, group_->name(), group_->world_ranks()[0], all[0], all[1],
         group_->world_ranks()[rank], theirs.begin, theirs.end);
  }
}

}  // namespace tessera::zero3
