// SPDX-License-Identifier: Apache-2.0
// The index work of dispatch. The K * T choices are sorted where they are; the host has their
// counts alone.
#include <algorithm>
#include <numeric>
#include <tessera/moe/dispatch.hpp>

#include "kernel/sort_by_key.hpp"
#include "shared_plan.hpp"

namespace tessera::moe {
namespace {

/// offsets[i] = sum of the counts before i; one entry more than counts.
std::vector<std::int64_t> exclusive_sums(const std::vector<std::int64_t>& counts) {
  std::vector<std::int64_t> offsets(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
  return offsets;
}

/// As a list of choices, token after token.
kernel::Vector<const std::int32_t> list_of(kernel::Matrix<const std::int32_t> index) {
  return kernel::Vector<const std::int32_t>(index.data(), index.size());
}

/// All that the host learns of the choices: how many rows go to each expert.
kernel::KeyCounts count_choices(kernel::Matrix<const std::int32_t> index, std::int64_t num_experts,
                                DispatchHandle& handle) {
  const kernel::KeyCounts counts =
      kernel::count_keys(kernel::Execution(), list_of(index), num_experts);
  const auto load = kernel::host_copy(counts.count);
  handle.num_send = static_cast<std::int64_t>(index.size());
  handle.local_load.assign(load.data(), load.data() + num_experts);
  return counts;
}

/// Sending order: choices sorted by expert, hence by rank, since ranks hold consecutive experts.
void sort_choices(kernel::Matrix<const std::int32_t> index, const kernel::KeyCounts& counts,
                  DispatchHandle& handle) {
  const std::int64_t num_tokens = index.extent(0), top_k = index.extent(1);
  handle.send_token = kernel::new_vector<std::int32_t>("dispatch send_token", handle.num_send);
  handle.slot = kernel::new_matrix<std::int32_t>("dispatch slot", num_tokens, top_k);
  kernel::sort_by_key(kernel::Execution(), list_of(index), counts, top_k,
                      kernel::Vector<std::int32_t>(handle.slot.data(), handle.num_send),
                      handle.send_token);
}

/// handle.arriving_count by messages.
comm::Request start_exchanging_counts(const comm::Communicator& expert_axis,
                                      const BlockDistribution& blocks, DispatchHandle& handle) {
  std::vector<std::int64_t> send_counts, receive_counts;
  const std::int64_t num_local = blocks.count(expert_axis.rank());
  for (int rank = 0; rank < expert_axis.size(); ++rank) {
    send_counts.push_back(blocks.count(rank));
    receive_counts.push_back(num_local);
  }
  handle.arriving_count.resize(expert_axis.size() * num_local);
  return expert_axis.start_all_to_all_v(
      "dispatch counts", std::span<const std::int64_t>(handle.local_load), send_counts,
      std::span<std::int64_t>(handle.arriving_count), receive_counts);
}

void count_per_rank(const BlockDistribution& blocks, std::int64_t num_local,
                    DispatchHandle& handle) {
  for (int rank = 0; rank < blocks.num_ranks; ++rank) {
    const auto mine = handle.local_load.begin();
    handle.send_counts.push_back(
        std::accumulate(mine + blocks.begin(rank), mine + blocks.end(rank), std::int64_t{0}));
    const auto theirs = handle.arriving_count.begin() + rank * num_local;
    handle.receive_counts.push_back(std::accumulate(theirs, theirs + num_local, std::int64_t{0}));
  }
  handle.num_received =
      std::accumulate(handle.arriving_count.begin(), handle.arriving_count.end(), std::int64_t{0});
}

kernel::Vector<const std::int32_t> on_device(const char* label,
                                             const std::vector<std::int32_t>& values) {
  const auto array = kernel::new_vector<std::int32_t>(label, std::ssize(values));
  const auto mirror = kernel::host_mirror(array);
  std::copy(values.begin(), values.end(), mirror.data());
  Kokkos::deep_copy(kernel::Execution(), array, mirror);
  return array;
}

/// Arrival order is (source, expert); experts want (expert, source).
void group_by_expert(std::int64_t num_sources, std::int64_t num_local, DispatchHandle& handle) {
  const std::vector<std::int64_t>& arriving = handle.arriving_count;
  std::vector<std::int64_t> load(num_local, 0);
  for (std::size_t i = 0; i < arriving.size(); ++i) load[i % num_local] += arriving[i];
  handle.expert_offset = exclusive_sums(load);
  if (num_sources == 1) return;  // the same order

  std::vector<std::int64_t> next = handle.expert_offset;
  std::vector<std::int32_t> first_grouped, first_arriving, size;
  std::int64_t arrival_row = 0;
  for (std::size_t i = 0; i < arriving.size(); ++i) {
    first_grouped.push_back(static_cast<std::int32_t>(next[i % num_local]));
    first_arriving.push_back(static_cast<std::int32_t>(arrival_row));
    size.push_back(static_cast<std::int32_t>(arriving[i]));
    next[i % num_local] += arriving[i];
    arrival_row += arriving[i];
  }
  handle.grouped_order = kernel::new_vector<std::int32_t>("dispatch order", handle.num_received);
  kernel::number_blocks(kernel::Execution(), on_device("dispatch first grouped", first_grouped),
                        on_device("dispatch first arriving", first_arriving),
                        on_device("dispatch block sizes", size), handle.grouped_order);
}

}  // namespace

DispatchHandle plan_dispatch(TokenExchange& exchange, std::int64_t num_experts,
                             kernel::Matrix<const std::int32_t> index) {
  const comm::Communicator& axis = exchange.axis();
  const BlockDistribution blocks{num_experts, axis.size()};
  const std::int64_t num_local = blocks.count(axis.rank());
  DispatchHandle handle;
  const kernel::KeyCounts load = count_choices(index, num_experts, handle);
  handle.plan_number = exchange.next_plan();
  if (exchange.reserve(Area::plan, plan_bytes(num_experts))) {
    sort_choices(index, load, handle);
    share_plans(exchange, blocks, index.extent(0), handle);
  } else {
    comm::Request counts = start_exchanging_counts(axis, blocks, handle);
    sort_choices(index, load, handle);
    counts.wait();
  }
  count_per_rank(blocks, num_local, handle);
  group_by_expert(axis.size(), num_local, handle);
  return handle;
}

}  // namespace tessera::moe
