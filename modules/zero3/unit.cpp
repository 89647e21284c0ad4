// SPDX-License-Identifier: Apache-2.0
#include <tessera/zero3/unit.hpp>

#include "base/contract.hpp"

namespace tessera::zero3 {

Unit::Unit(UnitSpec spec)
    : spec_(std::move(spec)),
      layout_(spec_.parameters, spec_.placement.experts(), spec_.placement.group().size()),
      slices_(layout_.slices(spec_.parameters, spec_.placement.group().rank())) {
  for (const Parameter& parameter : spec_.parameters) {
    TESSERA_EXPECT(parameter.is_expert == spec_.placement.is_expert());
  }
  spec_.placement.verify(spec_.name);
  gradient_ =
      kernel::allocate_zeros<kernel::Vector<float>>("gradient " + spec_.name, layout_.shard_size());
}

void Unit::allocate_master() {
  if (master_.extent(0) == gradient_.extent(0)) return;
  master_ =
      kernel::allocate_zeros<kernel::Vector<float>>("master " + spec_.name, layout_.shard_size());
}

void Unit::allocate_moments() {
  if (exp_avg_.extent(0) == master_.extent(0)) return;
  exp_avg_ =
      kernel::allocate_zeros<kernel::Vector<float>>("exp_avg " + spec_.name, layout_.shard_size());
  exp_avg_sq_ = kernel::allocate_zeros<kernel::Vector<float>>("exp_avg_sq " + spec_.name,
                                                              layout_.shard_size());
}

}  // namespace tessera::zero3
