// SPDX-License-Identifier: Apache-2.0
// Memory of a shard: zeroed, and not touched before it is used.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "kernel/view.hpp"

namespace tessera::zero3 {

/// A zeroed vector, there for as long as the object. On the host its pages come from the system,
/// which zeroes each when it is first written: a shard costs no time before it is used, and is not
/// written twice. All members are local.
class ShardMemory {
 public:
  ShardMemory() = default;
  /// Throws Error::memory.
  ShardMemory(const std::string& label, std::int64_t size);

  const kernel::Vector<float>& values() const { return values_; }

 private:
  struct Unmap {
    std::size_t num_bytes;
    void operator()(float* data) const;
  };
  std::unique_ptr<float, Unmap> pages_{nullptr, Unmap{0}};
  kernel::Vector<float> values_;
};

}  // namespace tessera::zero3
