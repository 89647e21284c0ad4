// SPDX-License-Identifier: Apache-2.0
#include <tessera/zero3/unit.hpp>

#include "base/contract.hpp"

namespace tessera::zero3 {

Unit::Unit(UnitSpec spec)
    : spec_(std::move(spec)),
      layout_(spec_.parameters, spec_.placement.experts(), spec_.placement.group().size(),
              spec_.rows),
      slices_(layout_.slices(spec_.parameters, spec_.placement.group().rank())) {
  for (const Parameter& parameter : spec_.parameters) {
    TESSERA_EXPECT(parameter.is_expert == spec_.placement.is_expert());
  }
  spec_.placement.verify(spec_.name);
  gradient_ = ShardMemory("gradient " + spec_.name, layout_.shard_size());
}

void Unit::allocate_master() {
  if (master_.extent(0) == gradient().extent(0)) return;
  own_master_ = ShardMemory("master " + spec_.name, layout_.shard_size());
  master_ = own_master_.values();
}

void Unit::allocate_moments() {
  if (exp_avg().extent(0) == master_.extent(0)) return;
  exp_avg_ = ShardMemory("exp_avg " + spec_.name, layout_.shard_size());
  exp_avg_sq_ = ShardMemory("exp_avg_sq " + spec_.name, layout_.shard_size());
}

}  // namespace tessera::zero3
