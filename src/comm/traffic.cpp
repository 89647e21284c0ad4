// SPDX-License-Identifier: Apache-2.0
// What communicators count.
#include <array>

#include "comm/communicator.hpp"

namespace tessera::comm {
namespace {

constexpr std::array traffic_kinds = {&Traffic::all_gather, &Traffic::reduce_scatter,
                                      &Traffic::all_to_all, &Traffic::all_reduce};

}  // namespace

TrafficVolume Traffic::total() const {
  TrafficVolume sum;
  for (const auto kind : traffic_kinds) {
    sum.logical_bytes += (this->*kind).logical_bytes;
    sum.moved_bytes += (this->*kind).moved_bytes;
  }
  return sum;
}

Traffic& Traffic::operator+=(const Traffic& other) {
  for (const auto kind : traffic_kinds) {
    (this->*kind).logical_bytes += (other.*kind).logical_bytes;
    (this->*kind).moved_bytes += (other.*kind).moved_bytes;
  }
  in_flight_s += other.in_flight_s;
  waited_s += other.waited_s;
  return *this;
}

Traffic& Traffic::operator-=(const Traffic& other) {
  for (const auto kind : traffic_kinds) {
    (this->*kind).logical_bytes -= (other.*kind).logical_bytes;
    (this->*kind).moved_bytes -= (other.*kind).moved_bytes;
  }
  in_flight_s -= other.in_flight_s;
  waited_s -= other.waited_s;
  return *this;
}

void Communicator::count_volume(TrafficVolume Traffic::*kind, TrafficVolume volume) const {
  ((*traffic_).*kind).logical_bytes += volume.logical_bytes;
  ((*traffic_).*kind).moved_bytes += volume.moved_bytes;
}

void Communicator::count_time(double in_flight_s, double waited_s) const {
  traffic_->in_flight_s += in_flight_s;
  traffic_->waited_s += waited_s;
}

}  // namespace tessera::comm
