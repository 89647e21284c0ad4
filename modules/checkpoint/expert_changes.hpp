// SPDX-License-Identifier: Apache-2.0
// What became of the experts of a tensor, as far as fingerprints tell.
#pragma once

#include <cstddef>
#include <vector>

#include "base/dtype.hpp"
#include "tessera/checkpoint/fingerprint.hpp"

namespace tessera::checkpoint {

struct ExpertChange {
  enum class Kind {
    moved,   ///< it is what another expert was
    zeroed,  ///< all of its elements are zero now
    changed,
  };
  std::size_t expert = 0;
  Kind kind = Kind::changed;
  std::size_t from = 0;  ///< moved: which one it was
};

/// The experts (of a dense tensor: the tensor) that are not in `found` what they are in `expected`,
/// ascending. `dtype` tells bytes (u8) from floats. local.
std::vector<ExpertChange> find_changes(const Shape& shape, Dtype dtype,
                                       const TensorFingerprint& expected,
                                       const TensorFingerprint& found);

}  // namespace tessera::checkpoint
