// SPDX-License-Identifier: Apache-2.0
// The process grid: who exchanges tokens with whom (expert axis) and who holds the same experts
// (replica axis). Passed by const reference first to everything that is distributed; never global.
#pragma once

#include <string>

#include "comm/communicator.hpp"

namespace tessera::comm {

struct GridShape {
  int expert = 1;  ///< E: ranks that hold different experts; divides the number of ranks
};

/// W ranks as W/E rows of E consecutive ranks. World rank w has expert_rank w % E and replica_rank
/// w / E: ranks of one expert group are consecutive, so they share a node where the node is large
/// enough.
class ProcessGrid {
 public:
  /// Duplicates and splits `parent`. collective over parent.
  /// Throws Error::usage (on all ranks alike) if shape.expert < 1 or does not divide the size.
  ProcessGrid(MPI_Comm parent, GridShape shape, CommunicatorOptions options = {});

  const Communicator& world() const { return world_; }      ///< all W ranks
  const Communicator& expert() const { return expert_; }    ///< E ranks with different experts
  const Communicator& replica() const { return replica_; }  ///< W/E ranks with the same experts
  const Communicator& node() const { return node_; }        ///< the ranks of this node

  /// `"4 ranks = 2 expert x 2 replica, 1 node"`: one line for logs. local.
  std::string describe() const;

 private:
  Communicator world_;
  Communicator expert_;
  Communicator replica_;
  Communicator node_;
  int num_nodes_ = 1;
};

}  // namespace tessera::comm
