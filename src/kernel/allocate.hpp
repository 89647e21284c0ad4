// SPDX-License-Identifier: Apache-2.0
// New memory for the kernels' arrays, and copies of arrays that the host may read and write. The
// host code touches no other: what is correct here is correct where the kernels' memory is a GPU's.
#pragma once

#include <numeric>
#include <string>
#include <utility>

#include "base/device_memory.hpp"
#include "kernel/view_types.hpp"

namespace tessera::kernel {

/// Whether the host may dereference the kernels' arrays. Where not, ranks of one node share no
/// memory either; and not in a run that checks device memory (base/device_memory.hpp). local.
inline bool host_sees_memory() {
  constexpr bool is_accessible = Kokkos::SpaceAccessibility<Kokkos::HostSpace, Memory>::accessible;
  return is_accessible && !device_memory_is_checked();
}

/// Guards `data` until Kokkos frees the memory around it. local.
void guard_array(const std::string& label, const void* data, std::int64_t bytes);

/// Throws OutOfMemory for an array for which there is no memory. local.
[[noreturn]] void fail_allocation(const std::string& label, double bytes, const char* reason);

/// From Kokkos, without initialisation. Throws OutOfMemory. local.
template <class View, class... Extents>
View allocate_view(const std::string& label, Extents... extents) {
  try {
    return View(Kokkos::view_alloc(label, Kokkos::WithoutInitializing), extents...);
  } catch (const std::exception& error) {
    const double bytes = (double(sizeof(typename View::value_type)) * ... * double(extents));
    fail_allocation(label, bytes, error.what());
  }
}

/// First rows (or elements, or planes) of an array whose margins pages may be guarded with.
template <class View, class... Extents>
View allocate_guarded(const std::string& label, std::int64_t first_extent, Extents... rest) {
  const std::int64_t row_bytes =
      (std::int64_t{sizeof(typename View::value_type)} * ... * std::int64_t(rest));
  constexpr std::int64_t alignment = 64;
  const std::int64_t unit = alignment / std::gcd(alignment, row_bytes);
  const std::int64_t margin =
      (guard_margin_bytes() + row_bytes * unit - 1) / (row_bytes * unit) * unit;
  const View whole = allocate_view<View>(label, first_extent + 2 * margin, rest...);
  const View array = Kokkos::subview(whole, Kokkos::make_pair(margin, margin + first_extent),
                                     ((void)rest, Kokkos::ALL)...);
  guard_array(label, array.data(), first_extent * row_bytes);
  return array;
}

/// A new array without initialisation. All of src and modules get their arrays here or by
/// new_matrix() and new_vector(). Throws OutOfMemory. local.
template <class View, class... Extents>
View allocate(const std::string& label, Extents... extents) {
  if (device_memory_is_checked() && (std::int64_t(extents) * ... * 1) > 0) {
    return allocate_guarded<View>(label, std::int64_t(extents)...);
  }
  return allocate_view<View>(label, extents...);
}
/// The same filled with zeros.
template <class View, class... Extents>
View allocate_zeros(const std::string& label, Extents... extents) {
  const View array = allocate<View>(label, extents...);
  Kokkos::deep_copy(array, typename View::value_type(0));
  return array;
}

/// What the host has of an array: contiguous, in host memory.
template <class View>
using HostView =
    Kokkos::View<typename View::non_const_data_type, Kokkos::LayoutRight, Kokkos::HostSpace>;
template <class View>
using ConstHostView =
    Kokkos::View<typename View::const_data_type, Kokkos::LayoutRight, Kokkos::HostSpace>;

/// An array of the same shape for the host to fill and to deep_copy() back: the array itself where
/// the host sees it (with what it holds), else a new one of zeros. local.
template <class View>
HostView<View> host_mirror(const View& array) {
  if constexpr (Kokkos::SpaceAccessibility<Kokkos::HostSpace, Memory>::accessible) {
    if (host_sees_memory()) return array;
  }
  return HostView<View>("host mirror", array.layout());
}
/// The values of an array for the host to read: the array itself where the host sees it, else a
/// copy. Waits for the kernels' stream alone: communication goes on. local.
template <class View>
ConstHostView<View> host_copy(const View& array) {
  if constexpr (Kokkos::SpaceAccessibility<Kokkos::HostSpace, Memory>::accessible) {
    if (host_sees_memory()) {
      Execution().fence();
      return array;
    }
  }
  const HostView<View> copy(
      Kokkos::view_alloc(std::string("host copy"), Kokkos::WithoutInitializing), array.layout());
  const Execution execution;
  Kokkos::deep_copy(execution, copy, array);
  execution.fence();
  return copy;
}

}  // namespace tessera::kernel
