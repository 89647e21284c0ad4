// SPDX-License-Identifier: Apache-2.0
#include "shared_plan.hpp"

#include <algorithm>
#include <cstring>

namespace tessera::moe {
namespace {

/// What Area::plan begins with; the rank's load of each expert follows.
struct PlanHeader {
  std::int64_t num_tokens;
  std::int64_t tokens_are_written;  ///< and the order
};

PlanHeader& header(const TokenExchange& exchange, int rank) {
  return *exchange.memory<PlanHeader>(Area::plan, rank);
}

std::int64_t* loads(const TokenExchange& exchange, int rank) {
  return reinterpret_cast<std::int64_t*>(&header(exchange, rank) + 1);
}

/// How many rows each owner receives, and which of them is the first of this rank for each expert:
/// an owner's rows are in order of (expert, source).
void place_at_owners(const TokenExchange& exchange, const BlockDistribution& blocks,
                     DispatchHandle& handle) {
  const int own_rank = exchange.axis().rank();
  for (int owner = 0; owner < exchange.axis().size(); ++owner) {
    std::int64_t row = 0;
    for (std::int64_t e = blocks.begin(owner); e < blocks.end(owner); ++e) {
      for (int source = 0; source < exchange.axis().size(); ++source) {
        if (source == own_rank) handle.row_at_owner.push_back(row);
        row += loads(exchange, source)[e];
      }
    }
    handle.largest_received = std::max(handle.largest_received, row);
  }
}

/// Which rows of each source are this rank's: a source's rows are in order of expert.
void find_arriving(const TokenExchange& exchange, const BlockDistribution& blocks,
                   DispatchHandle& handle) {
  const int own_rank = exchange.axis().rank();
  handle.tokens_are_written = true;
  for (int source = 0; source < exchange.axis().size(); ++source) {
    const std::int64_t* load = loads(exchange, source);
    std::int64_t row = 0;
    for (std::int64_t e = 0; e < blocks.num_items; ++e) {
      if (e >= blocks.begin(own_rank) && e < blocks.end(own_rank)) {
        handle.arriving_count.push_back(load[e]);
        handle.arriving_first.push_back(row);
      }
      row += load[e];
    }
    const PlanHeader& plan = header(exchange, source);
    handle.largest_send = std::max(handle.largest_send, row);
    handle.largest_num_tokens = std::max(handle.largest_num_tokens, plan.num_tokens);
    handle.tokens_are_written = handle.tokens_are_written && plan.tokens_are_written != 0;
  }
}

}  // namespace

std::int64_t plan_bytes(std::int64_t num_experts) {
  return std::int64_t{sizeof(PlanHeader)} + num_experts * std::int64_t{sizeof(std::int64_t)};
}

bool write_order(const TokenExchange& exchange, const DispatchHandle& handle) {
  const std::int64_t bytes = handle.num_send * std::int64_t{sizeof(std::int32_t)};
  if (bytes > exchange.capacity_bytes(Area::order)) return false;
  if (bytes == 0) return true;
  std::memcpy(exchange.memory<std::int32_t>(Area::order, exchange.axis().rank()),
              kernel::host_copy(handle.send_token).data(), static_cast<std::size_t>(bytes));
  return true;
}

void share_plans(TokenExchange& exchange, const BlockDistribution& blocks, std::int64_t num_tokens,
                 DispatchHandle& handle) {
  exchange.claim(Area::plan);
  exchange.claim(Area::order);
  const int rank = exchange.axis().rank();
  const bool tokens_are_written = exchange.take_written_tokens();
  const bool order_fits = write_order(exchange, handle);
  header(exchange, rank) = {num_tokens, tokens_are_written && order_fits ? 1 : 0};
  std::copy(handle.local_load.begin(), handle.local_load.end(), loads(exchange, rank));
  exchange.meet("dispatch plan");
  place_at_owners(exchange, blocks, handle);
  find_arriving(exchange, blocks, handle);
  exchange.lend(Area::plan);
}

}  // namespace tessera::moe
