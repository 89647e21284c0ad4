// SPDX-License-Identifier: Apache-2.0
// One collective call between Communicator's functions and its start().
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/collectives.hpp"

namespace tessera::comm {

// What start() needs to know of one collective call.
struct Communicator::Call {
  OperationKind operation;
  std::string_view what;
  Dtype dtype = Dtype::u8;
  std::int64_t count = 0;   // per rank; -1: may differ between ranks
  std::int32_t detail = 0;  // root or reduction: must agree, too
  std::function<Collectives::Started(Collectives&)> begin;
  const ComputeStream* stream = nullptr;  // of device memory; null: host memory
  std::vector<std::pair<const void*, std::int64_t>> buffers{};  // begin and bytes
};

}  // namespace tessera::comm
