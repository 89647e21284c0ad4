// SPDX-License-Identifier: Apache-2.0
// Tells tools that watch over device memory who uses it besides Kokkos' kernels and copies: library
// products and communication. Without a tool a use costs one branch.
#pragma once

#include <cstdint>
#include <utility>

namespace tessera {

/// Is told when an operation begins and ends to use `bytes` bytes at `data`, which may be none.
/// Calls come from whichever thread does the work; uses of the same bytes may nest.
class DeviceAccessListener {
 public:
  virtual ~DeviceAccessListener() = default;
  virtual void begin_access(const char* operation, const void* data, std::int64_t bytes) = 0;
  virtual void end_access(const char* operation, const void* data, std::int64_t bytes) = 0;
};

/// At most one of each tool; before other threads work. local.
void add_device_access_listener(DeviceAccessListener& listener);
void remove_device_access_listener(DeviceAccessListener& listener);

/// An operation uses these bytes from here to the end of the scope.
class DeviceAccess {
 public:
  DeviceAccess() = default;
  /// `operation` is a literal or outlives the object.
  DeviceAccess(const char* operation, const void* data, std::int64_t bytes);
  DeviceAccess(DeviceAccess&& other) noexcept { *this = std::move(other); }
  DeviceAccess& operator=(DeviceAccess&& other) noexcept {
    std::swap(operation_, other.operation_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceAccess();

 private:
  const char* operation_ = nullptr;  ///< null: nobody listens
  const void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

}  // namespace tessera
