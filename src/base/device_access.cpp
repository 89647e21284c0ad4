// SPDX-License-Identifier: Apache-2.0
#include "base/device_access.hpp"

#include <vector>

namespace tessera {
namespace {

std::vector<DeviceAccessListener*>& listeners() {
  static auto& instance = *new std::vector<DeviceAccessListener*>;  // other threads outlive main
  return instance;
}

}  // namespace

void add_device_access_listener(DeviceAccessListener& listener) {
  listeners().push_back(&listener);
}

void remove_device_access_listener(DeviceAccessListener& listener) {
  std::erase(listeners(), &listener);
}

DeviceAccess::DeviceAccess(const char* operation, const void* data, std::int64_t bytes)
    : data_(data), bytes_(bytes) {
  if (listeners().empty()) return;
  operation_ = operation;
  for (DeviceAccessListener* listener : listeners()) listener->begin_access(operation, data, bytes);
}

DeviceAccess::~DeviceAccess() {
  if (operation_ == nullptr) return;
  for (DeviceAccessListener* listener : listeners()) {
    listener->end_access(operation_, data_, bytes_);
  }
}

}  // namespace tessera
