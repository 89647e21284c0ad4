// SPDX-License-Identifier: Apache-2.0
// A ZeRO-3 unit: parameters that are gathered, used and released together. Holds this rank's shard
// of the f32 master weights, of the gradient and of the optimizer's state.
#pragma once

#include <string>
#include <vector>

#include "tessera/zero3/flat_layout.hpp"
#include "tessera/zero3/placement.hpp"
#include "tessera/zero3/shard_memory.hpp"

namespace tessera::zero3 {

/// A unit before it has memory: what the model asks for.
struct UnitSpec {
  std::string name;  ///< e.g. "layers.3.expert"
  std::vector<Parameter> parameters;
  Placement placement;
  RowRange rows = {};  ///< of its parameters that it has
};

class Unit {
 public:
  /// Verifies the placement and allocates a zeroed gradient shard; the master follows.
  /// collective over spec.placement.group().
  explicit Unit(UnitSpec spec);

  const std::string& name() const { return spec_.name; }
  const std::vector<Parameter>& parameters() const { return spec_.parameters; }
  const comm::Communicator& group() const { return spec_.placement.group(); }
  /// False for a further chunk of a parameter that another unit begins.
  bool has_first_rows() const { return spec_.rows.begin == 0; }
  const Placement& placement() const { return spec_.placement; }
  const FlatLayout& layout() const { return layout_; }
  const std::vector<Slice>& slices() const { return slices_; }  ///< of this rank

  const kernel::Vector<float>& master() const { return master_; }  ///< [shard_size]
  /// [shard_size], summed over ranks
  const kernel::Vector<float>& gradient() const { return gradient_.values(); }
  /// [shard_size] or empty
  const kernel::Vector<float>& exp_avg() const { return exp_avg_.values(); }
  const kernel::Vector<float>& exp_avg_sq() const { return exp_avg_sq_.values(); }

  /// Allocates a zeroed master shard unless there is one. local.
  void allocate_master();
  /// The master shard lies in memory of the caller's, zeroed. local.
  void set_master(kernel::Vector<float> master) { master_ = master; }
  /// Allocates zeroed Adam moments unless they are there. local.
  void allocate_moments();

 private:
  UnitSpec spec_;
  FlatLayout layout_;
  std::vector<Slice> slices_;
  kernel::Vector<float> master_;
  ShardMemory own_master_, gradient_, exp_avg_, exp_avg_sq_;
};

}  // namespace tessera::zero3
