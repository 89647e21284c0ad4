// SPDX-License-Identifier: Apache-2.0
// A kernel with mistakes that the gate must refuse, one for each PLANT_.
#include <cstdlib>

#include "kernel/view.hpp"

namespace tessera::kernel {

inline int of_the_host(int x) { return std::abs(x) + (std::getenv("HOME") == nullptr ? 1 : 0); }

void planted(const Execution& execution, Vector<int> values) {
  Kokkos::parallel_for(
      "planted", Range(execution, 0, values.extent(0)), KOKKOS_LAMBDA(const std::int64_t i) {
#ifdef PLANT_HOST_CALL
        values(i) = of_the_host(values(i));
#else
        values(i) = -values(i);
#endif
      });
}

struct Counter {
  Vector<int> values;
  int step = 1;

  void count(const Execution& execution) {
#ifndef PLANT_CAPTURES_THIS
    const Vector<int> values = this->values;
    const int step = this->step;
#endif
    Kokkos::parallel_for(
        "planted_count", Range(execution, 0, values.extent(0)),
        KOKKOS_LAMBDA(const std::int64_t i) { values(i) += step; });
  }
};

void planted_too(const Execution& execution, Counter& counter) { counter.count(execution); }

}  // namespace tessera::kernel
