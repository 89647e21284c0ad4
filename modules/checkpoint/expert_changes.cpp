// SPDX-License-Identifier: Apache-2.0
#include "expert_changes.hpp"

#include <algorithm>
#include <map>

namespace tessera::checkpoint {
namespace {

// Of one expert whose elements are all zero.
Fingerprint fingerprint_of_zeros(const Shape& shape, Dtype dtype, std::int64_t num_elements) {
  constexpr std::int64_t step = 1 << 16;
  const std::vector<float> floats(dtype == Dtype::u8 ? 0 : step);
  const std::vector<std::uint8_t> bytes(dtype == Dtype::u8 ? step : 0);
  const Shape rows = {num_elements / shape.back(), shape.back()};
  FingerprintTable table;
  for (std::int64_t begin = 0; begin < num_elements; begin += step) {
    const auto count = static_cast<std::size_t>(std::min(step, num_elements - begin));
    if (dtype == Dtype::u8) {
      table.add_bytes("", rows, false, begin, std::span(bytes).first(count));
    } else {
      table.add({.name = "", .shape = rows}, begin, std::span(floats).first(count));
    }
  }
  return table.find("")->experts.front();
}

}  // namespace

std::vector<ExpertChange> find_changes(const Shape& shape, Dtype dtype,
                                       const TensorFingerprint& expected,
                                       const TensorFingerprint& found) {
  std::vector<ExpertChange> changes;
  if (expected.experts == found.experts) return changes;
  const Fingerprint zeros = fingerprint_of_zeros(shape, dtype, found.num_elements.front());
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::size_t> places;
  for (std::size_t e = 0; e < expected.experts.size(); ++e) {
    places.emplace(std::pair(expected.experts[e].high, expected.experts[e].low), e);
  }
  for (std::size_t e = 0; e < found.experts.size(); ++e) {
    const Fingerprint& now = found.experts[e];
    if (now == expected.experts[e]) continue;
    const auto place = places.find({now.high, now.low});
    using Kind = ExpertChange::Kind;
    if (now == zeros) {
      changes.push_back({e, Kind::zeroed});
    } else if (place != places.end()) {
      changes.push_back({e, Kind::moved, place->second});
    } else {
      changes.push_back({e, Kind::changed});
    }
  }
  return changes;
}

}  // namespace tessera::checkpoint
