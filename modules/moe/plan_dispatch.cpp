// SPDX-License-Identifier: Apache-2.0
// The index work of dispatch, on the host: counting sorts of K * T choices.
#include <numeric>
#include <tessera/moe/dispatch.hpp>

#include "base/error.hpp"

namespace tessera::moe {
namespace {

template <class V>
auto host_copy(const V& view) {
  return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), view);
}

kernel::Vector<std::int32_t> to_device(const char* label, const std::vector<std::int32_t>& values) {
  const kernel::Vector<std::int32_t> view(kernel::uninitialized(label), values.size());
  Kokkos::deep_copy(
      view, Kokkos::View<const std::int32_t*, Kokkos::HostSpace>(values.data(), values.size()));
  return view;
}

/// offsets[i] = sum of the counts before i; one entry more than counts.
std::vector<std::int64_t> exclusive_sums(const std::vector<std::int64_t>& counts) {
  std::vector<std::int64_t> offsets(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
  return offsets;
}

/// Sending order: choices sorted by expert, hence by rank, since ranks hold consecutive experts.
void sort_choices(kernel::Matrix<const std::int32_t> index, std::int64_t num_experts,
                  DispatchHandle& handle) {
  const auto index_host = host_copy(index);
  const std::int64_t num_tokens = index.extent(0), top_k = index.extent(1);
  handle.num_send = num_tokens * top_k;
  handle.local_load.assign(num_experts, 0);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) ++handle.local_load[index_host(t, k)];
  }
  std::vector<std::int64_t> next = exclusive_sums(handle.local_load);
  std::vector<std::int32_t> send_token(handle.num_send);
  handle.slot =
      kernel::Matrix<std::int32_t>(kernel::uninitialized("dispatch slot"), num_tokens, top_k);
  const auto slot = Kokkos::create_mirror_view(handle.slot);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      const std::int64_t row = next[index_host(t, k)]++;
      slot(t, k) = static_cast<std::int32_t>(row);
      send_token[row] = static_cast<std::int32_t>(t);
    }
  }
  Kokkos::deep_copy(handle.slot, slot);
  handle.send_token = to_device("dispatch send_token", send_token);
}

/// Rows that each source rank sends to each local expert: [source rank][local expert].
std::vector<std::int64_t> exchange_counts(const comm::Communicator& expert_axis,
                                          const BlockDistribution& blocks,
                                          const std::vector<std::int64_t>& local_load) {
  std::vector<std::int64_t> send_counts, receive_counts;
  const std::int64_t num_local = blocks.count(expert_axis.rank());
  for (int rank = 0; rank < expert_axis.size(); ++rank) {
    send_counts.push_back(blocks.count(rank));
    receive_counts.push_back(num_local);
  }
  std::vector<std::int64_t> arriving(expert_axis.size() * num_local);
  expert_axis.all_to_all_v("dispatch counts", std::span<const std::int64_t>(local_load),
                           send_counts, std::span<std::int64_t>(arriving), receive_counts);
  return arriving;
}

/// Arrival order is (source, expert); experts want (expert, source).
void group_by_expert(const std::vector<std::int64_t>& arriving, int num_sources,
                     std::int64_t num_local, DispatchHandle& handle) {
  std::vector<std::int64_t> load(num_local, 0);
  for (std::size_t i = 0; i < arriving.size(); ++i) load[i % num_local] += arriving[i];
  handle.expert_offset = exclusive_sums(load);

  std::vector<std::int32_t> order(handle.num_received), row_expert(handle.num_received);
  std::vector<std::int64_t> next = handle.expert_offset;
  std::int64_t arrival_row = 0;
  for (int source = 0; source < num_sources; ++source) {
    for (std::int64_t expert = 0; expert < num_local; ++expert) {
      for (std::int64_t n = arriving[source * num_local + expert]; n > 0; --n) {
        const std::int64_t row = next[expert]++;
        order[row] = static_cast<std::int32_t>(arrival_row++);
        row_expert[row] = static_cast<std::int32_t>(expert);
      }
    }
  }
  handle.row_expert = to_device("dispatch row_expert", row_expert);
  if (num_sources > 1) handle.grouped_order = to_device("dispatch order", order);
}

}  // namespace

DispatchHandle plan_dispatch(const comm::Communicator& expert_axis, std::int64_t num_experts,
                             kernel::Matrix<const std::int32_t> index) {
  const BlockDistribution blocks{num_experts, expert_axis.size()};
  const std::int64_t num_local = blocks.count(expert_axis.rank());
  DispatchHandle handle;
  sort_choices(index, num_experts, handle);
  const std::vector<std::int64_t> arriving =
      exchange_counts(expert_axis, blocks, handle.local_load);
  for (int rank = 0; rank < expert_axis.size(); ++rank) {
    const auto mine = handle.local_load.begin();
    handle.send_counts.push_back(
        std::accumulate(mine + blocks.begin(rank), mine + blocks.end(rank), std::int64_t{0}));
    const auto theirs = arriving.begin() + rank * num_local;
    handle.receive_counts.push_back(std::accumulate(theirs, theirs + num_local, std::int64_t{0}));
  }
  handle.num_received = std::accumulate(arriving.begin(), arriving.end(), std::int64_t{0});
  group_by_expert(arriving, expert_axis.size(), num_local, handle);
  return handle;
}

}  // namespace tessera::moe
