// SPDX-License-Identifier: Apache-2.0
// The discipline of device memory, tried on the host. In a checked run the pages of every array of
// the kernels are inaccessible, except while a kernel, a copy or a collective works on them; so
// what would fault on a GPU faults here, with the array's label and a stack trace. Pages and
// signals alone; kernel/allocate.hpp tells it of arrays and kernels, base/device_access.hpp of
// collectives.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace tessera {

/// Whether this run is checked: TESSERA_DEVICE_MEMORY_CHECK=1 in the environment. For tests and for
/// debugging: a kernel then pays a fault for each array that it touches. local.
bool device_memory_is_checked();

/// So much memory of its own must lie before and behind a guarded array: pages are guarded as a
/// whole. local.
std::int64_t guard_margin_bytes();

/// From now on `data` is inaccessible but for work on the device. Its label appears in the message
/// of a fault. local.
void guard_device_array(std::string_view label, const void* data, std::int64_t bytes);
/// Makes the guarded arrays within the block ordinary memory again, before it is freed. local.
void unguard_device_arrays(const void* block, std::int64_t bytes);

/// Between the two, all arrays are accessible; they may be nested. `what` appears in the message of
/// a later fault. local.
void begin_device_work(std::string_view what);
void end_device_work();
/// The array of this address, if there is one, for the work under way. local.
void open_device_array(const void* data);

/// A kernel that Kokkos does not know of: a matrix product, say. Its arrays are opened at once, as
/// the code of a library may not bear a signal in its midst (oneDNN's products do not). Null is no
/// array. Free in an unchecked run.
class DeviceWork {
 public:
  DeviceWork(std::string_view what, std::initializer_list<const void*> arrays)
      : is_checked_(device_memory_is_checked()) {
    if (!is_checked_) return;
    begin_device_work(what);
    for (const void* array : arrays) open_device_array(array);
  }
  ~DeviceWork() {
    if (is_checked_) end_device_work();
  }
  DeviceWork(const DeviceWork&) = delete;
  DeviceWork& operator=(const DeviceWork&) = delete;

 private:
  bool is_checked_;
};

}  // namespace tessera
