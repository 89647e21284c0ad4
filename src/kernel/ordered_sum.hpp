// SPDX-License-Identifier: Apache-2.0
// Sums that do not depend on the number of threads: parts in any order, then the parts in theirs.
#pragma once

#include "kernel/view.hpp"

namespace tessera::kernel {

/// parts[0] + parts[1] + ..., on the host; waits for `execution`. local.
inline double ordered_sum(const Execution& execution, const Vector<double>& parts) {
  execution.fence();
  const auto host = host_copy(parts);
  double sum = 0.0;
  for (std::size_t i = 0; i < host.extent(0); ++i) sum += host(i);
  return sum;
}

}  // namespace tessera::kernel
