// SPDX-License-Identifier: Apache-2.0
// The index work of dispatch, on the host: counting sorts of K * T choices.
#include <numeric>
#include <tessera/moe/dispatch.hpp>

#include "shared_plan.hpp"

namespace tessera::moe {
namespace {

/// The values for the host. Waits for the kernels' stream alone: communication goes on.
template <class V>
auto host_copy(const V& view) {
  const kernel::Execution execution;
  if constexpr (Kokkos::SpaceAccessibility<Kokkos::HostSpace, kernel::Memory>::accessible) {
    execution.fence();
    return view;
  } else {
    const typename V::HostMirror host(kernel::uninitialized("host copy"), view.layout());
    Kokkos::deep_copy(execution, host, view);
    execution.fence();
    return host;
  }
}

/// offsets[i] = sum of the counts before i; one entry more than counts.
std::vector<std::int64_t> exclusive_sums(const std::vector<std::int64_t>& counts) {
  std::vector<std::int64_t> offsets(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
  return offsets;
}

void count_choices(kernel::Matrix<const std::int32_t> index, std::int64_t num_experts,
                   DispatchHandle& handle) {
  const auto index_host = host_copy(index);
  handle.num_send = static_cast<std::int64_t>(index.size());
  handle.local_load.assign(num_experts, 0);
  for (std::size_t t = 0; t < index.extent(0); ++t) {
    for (std::size_t k = 0; k < index.extent(1); ++k) ++handle.local_load[index_host(t, k)];
  }
}

/// Sending order: choices sorted by expert, hence by rank, since ranks hold consecutive experts.
void sort_choices(kernel::Matrix<const std::int32_t> index, DispatchHandle& handle) {
  const auto index_host = host_copy(index);
  const std::int64_t num_tokens = index.extent(0), top_k = index.extent(1);
  std::vector<std::int64_t> next = exclusive_sums(handle.local_load);
  handle.send_token = kernel::new_vector<std::int32_t>("dispatch send_token", handle.num_send);
  handle.slot = kernel::new_matrix<std::int32_t>("dispatch slot", num_tokens, top_k);
  const auto send_token = Kokkos::create_mirror_view(handle.send_token);
  const auto slot = Kokkos::create_mirror_view(handle.slot);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      const std::int64_t row = next[index_host(t, k)]++;
      slot(t, k) = static_cast<std::int32_t>(row);
      send_token(row) = static_cast<std::int32_t>(t);
    }
  }
  Kokkos::deep_copy(kernel::Execution(), handle.slot, slot);
  Kokkos::deep_copy(kernel::Execution(), handle.send_token, send_token);
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

/// Arrival order is (source, expert); experts want (expert, source).
void group_by_expert(std::int64_t num_sources, std::int64_t num_local, DispatchHandle& handle) {
  const std::vector<std::int64_t>& arriving = handle.arriving_count;
  std::vector<std::int64_t> load(num_local, 0);
  for (std::size_t i = 0; i < arriving.size(); ++i) load[i % num_local] += arriving[i];
  handle.expert_offset = exclusive_sums(load);

  handle.row_expert = kernel::new_vector<std::int32_t>("dispatch row_expert", handle.num_received);
  handle.grouped_order = kernel::new_vector<std::int32_t>("dispatch order", handle.num_received);
  const auto row_expert = Kokkos::create_mirror_view(handle.row_expert);
  const auto order = Kokkos::create_mirror_view(handle.grouped_order);
  std::vector<std::int64_t> next = handle.expert_offset;
  std::int64_t arrival_row = 0;
  for (std::int64_t source = 0; source < num_sources; ++source) {
    for (std::int64_t expert = 0; expert < num_local; ++expert) {
      for (std::int64_t n = arriving[source * num_local + expert]; n > 0; --n) {
        const std::int64_t row = next[expert]++;
        order(row) = static_cast<std::int32_t>(arrival_row++);
        row_expert(row) = static_cast<std::int32_t>(expert);
      }
    }
  }
  Kokkos::deep_copy(kernel::Execution(), handle.row_expert, row_expert);
  Kokkos::deep_copy(kernel::Execution(), handle.grouped_order, order);
}

}  // namespace

DispatchHandle plan_dispatch(TokenExchange& exchange, std::int64_t num_experts,
                             kernel::Matrix<const std::int32_t> index) {
  const comm::Communicator& axis = exchange.axis();
  const BlockDistribution blocks{num_experts, axis.size()};
  const std::int64_t num_local = blocks.count(axis.rank());
  DispatchHandle handle;
  count_choices(index, num_experts, handle);
  handle.plan_number = exchange.next_plan();
  if (exchange.reserve(Area::plan, plan_bytes(num_experts))) {
    sort_choices(index, handle);
    share_plans(exchange, blocks, index.extent(0), handle);
  } else {
    comm::Request counts = start_exchanging_counts(axis, blocks, handle);
    sort_choices(index, handle);
    counts.wait();
  }
  count_per_rank(blocks, num_local, handle);
  group_by_expert(axis.size(), num_local, handle);
  return handle;
}

}  // namespace tessera::moe
