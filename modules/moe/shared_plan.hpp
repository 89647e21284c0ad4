// SPDX-License-Identifier: Apache-2.0
// Plans of ranks that share memory: each lays its own open and reads those of all others.
#pragma once

#include "tessera/moe/dispatch.hpp"

namespace tessera::moe {

/// Fills what the handle knows of other ranks, from its num_send, send_token and local_load.
/// exchange.reserve(Area::plan, ...) has held plan_bytes. collective over the axis.
void share_plans(TokenExchange& exchange, const BlockDistribution& blocks, std::int64_t num_tokens,
                 DispatchHandle& handle);

/// Size of Area::plan.
std::int64_t plan_bytes(std::int64_t num_experts);

/// Writes this rank's order of rows where others see it; false if the area is too small. local.
bool write_order(const TokenExchange& exchange, const DispatchHandle& handle);

}  // namespace tessera::moe
