// SPDX-License-Identifier: Apache-2.0
// The array types of all kernels: row-major Kokkos views in the memory of the default execution
// space. Constructed from a label they own memory; constructed from a pointer they refer to
// somebody else's (a pool, a gathered unit, a caller's array).
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

#include "base/dtype.hpp"

namespace tessera::kernel {

using Execution = Kokkos::DefaultExecutionSpace;
#ifdef TESSERA_MANAGED_MEMORY
using Memory = Kokkos::SharedSpace;  // tests on a GPU: the host reads and writes it as well
#else
using Memory = Execution::memory_space;
#endif

template <class T>
using Vector = Kokkos::View<T*, Kokkos::LayoutRight, Memory>;
template <class T>
using Matrix = Kokkos::View<T**, Kokkos::LayoutRight, Memory>;
template <class T>
using Tensor3 = Kokkos::View<T***, Kokkos::LayoutRight, Memory>;
template <class T>
using Tensor4 = Kokkos::View<T****, Kokkos::LayoutRight, Memory>;

using Range = Kokkos::RangePolicy<Execution, Kokkos::IndexType<std::int64_t>>;
using Team = Kokkos::TeamPolicy<Execution, Kokkos::IndexType<std::int64_t>>;

/// Memory without initialisation, labelled for tools and for out-of-memory messages.
inline auto uninitialized(const char* label) {
  return Kokkos::view_alloc(std::string(label), Kokkos::WithoutInitializing);
}

}  // namespace tessera::kernel
