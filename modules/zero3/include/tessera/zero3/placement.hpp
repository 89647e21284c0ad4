// SPDX-License-Identifier: Apache-2.0
// Over which ranks a parameter is sharded: part of what a unit is, so that experts can never be
// taken for replicas of one another.
#pragma once

#include <cstdint>
#include <string>

#include "base/block_distribution.hpp"
#include "comm/process_grid.hpp"

namespace tessera::zero3 {

/// Consecutive experts.
struct ExpertRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t count() const { return end - begin; }
  bool operator==(const ExpertRange&) const = default;
};

class Placement {
 public:
  /// Sharded over all ranks of the grid.
  static Placement dense(const comm::ProcessGrid& grid);
  /// Experts dealt in blocks to the expert axis; each block sharded over the replica axis.
  static Placement expert(const comm::ProcessGrid& grid, std::int64_t num_experts);
  /// Any other group, e.g. of a science code: this rank holds `experts` and shares them with
  /// `group`. The communicator must outlive the placement.
  Placement(const comm::Communicator& group, ExpertRange experts)
      : group_(&group), experts_(experts), is_expert_(true) {}

  const comm::Communicator& group() const { return *group_; }
  bool is_expert() const { return is_expert_; }
  ExpertRange experts() const { return experts_; }  ///< of this rank; empty range for dense

  /// Refuses a group whose ranks hold different experts, naming `unit` and both ranks: reducing
  /// over it would overwrite experts with one another. collective over group(); throws alike on its
  /// ranks.
  void verify(const std::string& unit) const;

 private:
  explicit Placement(const comm::Communicator& group) : group_(&group) {}

  const comm::Communicator* group_;
  ExpertRange experts_;
  bool is_expert_ = false;
};

}  // namespace tessera::zero3
