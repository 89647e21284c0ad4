// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tessera/study/collective_time.hpp"

namespace tessera::study {

/// `num_steps` steps of a ring over a group in which each rank sends `bytes` to the next in each
/// step, until the last rank is through. A rank sends as soon as it has received; so either one
/// link is the bound, with its latency once, or a block on its way around, with the latencies of
/// all its links.
CollectiveSeconds ring_seconds(const Group& group, std::int64_t num_steps, double bytes,
                               const Machine& machine);

}  // namespace tessera::study
