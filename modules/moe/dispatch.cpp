// SPDX-License-Identifier: Apache-2.0
// Where the ranks share memory, rows are read and written in place, and there are four meetings per
// layer and step. Forward: (1) in plan_dispatch, before tokens are read; (2) in combine, before
// outputs are read. Backward: (3) in combine, before gradients of outputs that others wrote here
// are read; (4) in dispatch, before gradients of rows are read. Each rank waits for all others, as
// it needs rows of all. Whatever is overwritten was read before the last meeting but one; between
// arriving at (4) and waiting there a rank uses memory of its own alone.
#include <numeric>
#include <tessera/moe/dispatch.hpp>

#include "base/contract.hpp"
#include "kernel/addressed_rows.hpp"
#include "kernel/rows.hpp"
#include "shared_plan.hpp"

namespace tessera::moe {
namespace {

using kernel::RowAddresses;

std::vector<std::int64_t> times(std::vector<std::int64_t> counts, std::int64_t width) {
  for (std::int64_t& count : counts) count *= width;
  return counts;
}

/// One address for each row: fill(append) calls append(first element) for one after the other.
template <class T, class Fill>
RowAddresses<T> addresses(std::int64_t num_rows, const Fill& fill) {
  const auto result = kernel::new_vector<kernel::RowAddress<T>>("row addresses", num_rows);
  const auto host = kernel::host_mirror(result);
  std::int64_t row = 0;
  fill([&](T* first) { host(row++) = {first}; });
  TESSERA_EXPECT(row == num_rows);
  Kokkos::deep_copy(result, host);
  return result;
}

/// Where the rows that this rank sends are at their experts' ranks, in sending order.
template <class T>
RowAddresses<T> at_owners(const TokenExchange& exchange, const DispatchHandle& handle, Area area,
                          std::int64_t width) {
  const auto num_experts = static_cast<std::int64_t>(handle.local_load.size());
  const BlockDistribution blocks{num_experts, exchange.axis().size()};
  return addresses<T>(handle.num_send, [&](const auto& append) {
    for (std::int64_t e = 0; e < num_experts; ++e) {
      T* first = exchange.memory<T>(area, static_cast<int>(blocks.owner(e))) +
                 handle.row_at_owner[e] * width;
      for (std::int64_t i = 0; i < handle.local_load[e]; ++i) append(first + i * width);
    }
  });
}

/// The token of each grouped row, at the rank that it comes from.
template <class T>
RowAddresses<const T> at_sources(const TokenExchange& exchange, const DispatchHandle& handle,
                                 std::int64_t width) {
  const auto num_local = static_cast<std::int64_t>(handle.expert_offset.size()) - 1;
  return addresses<const T>(handle.num_received, [&](const auto& append) {
    for (std::int64_t e = 0; e < num_local; ++e) {
      for (int source = 0; source < exchange.axis().size(); ++source) {
        const std::int64_t block = source * num_local + e;
        const T* tokens = exchange.memory<T>(Area::tokens, source);
        const std::int32_t* order =
            exchange.memory<std::int32_t>(Area::order, source) + handle.arriving_first[block];
        for (std::int64_t i = 0; i < handle.arriving_count[block]; ++i) {
          append(tokens + order[i] * width);
        }
      }
    }
  });
}

/// Tokens and order of all ranks where all can read them. False if they share no memory.
template <class T>
bool publish(TokenExchange& exchange, const DispatchHandle& handle, kernel::Matrix<const T> x) {
  if (!exchange.is_shared()) return false;
  // The usual way: norm and router wrote into the shared memory, plan_dispatch has met.
  if (handle.tokens_are_written && exchange.is_last_plan(handle.plan_number)) {
    TESSERA_EXPECT(x.size() == 0 ||
                   x.data() == exchange.memory<T>(Area::tokens, exchange.axis().rank()));
    return true;
  }
  const std::int64_t row_bytes = x.extent(1) * std::int64_t{sizeof(T)};
  if (!exchange.reserve(Area::order, handle.largest_send * std::int64_t{sizeof(std::int32_t)}) ||
      !exchange.reserve(Area::tokens, handle.largest_num_tokens * row_bytes)) {
    return false;
  }
  exchange.claim(Area::order);
  exchange.claim(Area::tokens);
  write_order(exchange, handle);
  const kernel::Matrix<T> own(exchange.memory<T>(Area::tokens, exchange.axis().rank()), x.extent(0),
                              x.extent(1));
  if (own.data() != x.data()) Kokkos::deep_copy(own, x);
  exchange.meet("dispatch tokens");
  return true;
}

/// Rows in sending order set off to the experts' ranks, by messages.
template <class T>
RowsUnderWay<T> start_to_experts(const comm::Communicator& expert_axis,
                                 const DispatchHandle& handle, const char* what,
                                 const kernel::Matrix<T>& sent) {
  const std::int64_t width = sent.extent(1);
  const auto arrived = kernel::new_matrix<T>("arrived rows", handle.num_received, width);
  return {sent, arrived,
          expert_axis.start_all_to_all_v(
              comm::compute_stream(), what, std::span<const T>(sent.data(), sent.size()),
              times(handle.send_counts, width), std::span<T>(arrived.data(), arrived.size()),
              times(handle.receive_counts, width))};
}

/// The same when they have come, grouped by local expert.
template <class T>
kernel::Matrix<T> finish_to_experts(const DispatchHandle& handle, RowsUnderWay<T> rows) {
  rows.request.wait();
  const auto grouped =
      kernel::new_matrix<T>("grouped rows", handle.num_received, rows.received.extent(1));
  kernel::gather_rows<T, T>(kernel::Execution(), rows.received, handle.grouped_order, grouped);
  return grouped;
}

/// Grouped rows set off to the ranks of their tokens, in sending order there: by messages, or by
/// letting the others read them.
template <class T>
RowsUnderWay<T> start_to_tokens(TokenExchange& exchange, const DispatchHandle& handle,
                                const char* what, kernel::Matrix<const T> grouped) {
  const comm::Communicator& axis = exchange.axis();
  if (exchange.is_shared()) {
    TESSERA_EXPECT(grouped.size() == 0 ||
                   grouped.data() == exchange.memory<T>(Area::results, axis.rank()));
    exchange.arrive();
    return {grouped, {}, {}};
  }
  if (axis.size() == 1) return {grouped, {}, {}};
  const std::int64_t width = grouped.extent(1);
  const auto leaving = kernel::new_matrix<T>("leaving rows", handle.num_received, width);
  const auto returned = kernel::new_matrix<T>("returned rows", handle.num_send, width);
  kernel::scatter_rows<T>(kernel::Execution(), grouped, handle.grouped_order, leaving);
  return {leaving, returned,
          axis.start_all_to_all_v(
              comm::compute_stream(), what, std::span<const T>(leaving.data(), leaving.size()),
              times(handle.receive_counts, width), std::span<T>(returned.data(), returned.size()),
              times(handle.send_counts, width))};
}

/// Counts rows that were read or written in place as the all-to-all that they replace; counts: of
/// what messages would have brought here. Nothing travels within a rank.
void count_rows(const TokenExchange& exchange, const std::vector<std::int64_t>& counts,
                std::int64_t row_bytes) {
  const std::int64_t own = counts[static_cast<std::size_t>(exchange.axis().rank())];
  const std::int64_t bytes =
      (std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) - own) * row_bytes;
  exchange.axis().count_volume(&comm::Traffic::all_to_all, {bytes, bytes});
}

/// What the experts made of the rows that this rank sent, in sending order.
template <class T>
struct Returned {
  kernel::Matrix<const T> rows;  ///< all of them, or empty if they lie in others' memory
  RowAddresses<const T> addresses;
};

template <class T>
Returned<T> finish_to_tokens(TokenExchange& exchange, const DispatchHandle& handle,
                             const char* what, RowsUnderWay<T> rows) {
  if (exchange.is_shared()) {
    exchange.await_others(what);
    exchange.lend(Area::results);
    count_rows(exchange, handle.send_counts, rows.sent.extent(1) * std::int64_t{sizeof(T)});
    return {{}, at_owners<const T>(exchange, handle, Area::results, rows.sent.extent(1))};
  }
  rows.request.wait();
  const kernel::Matrix<const T> returned =
      exchange.axis().size() == 1 ? rows.sent : kernel::Matrix<const T>(rows.received);
  return {returned, kernel::addresses_of<const T>(kernel::Execution(), returned)};
}

}  // namespace

template <class T>
kernel::Matrix<T> dispatch_forward(TokenExchange& exchange, const DispatchHandle& handle,
                                   kernel::Matrix<const T> x) {
  constexpr const char* what = "dispatch forward";
  if (!publish(exchange, handle, x)) {
    const auto sent = kernel::new_matrix<T>("sent rows", handle.num_send, x.extent(1));
    kernel::gather_rows<T, T>(kernel::Execution(), x, handle.send_token, sent);
    if (exchange.axis().size() == 1) return sent;
    return finish_to_experts<T>(handle, start_to_experts<T>(exchange.axis(), handle, what, sent));
  }
  const auto rows = kernel::new_matrix<T>("grouped rows", handle.num_received, x.extent(1));
  kernel::gather_rows<T>(kernel::Execution(), at_sources<T>(exchange, handle, x.extent(1)), rows);
  exchange.lend(Area::tokens);
  exchange.lend(Area::order);
  count_rows(exchange, handle.receive_counts, x.extent(1) * std::int64_t{sizeof(T)});
  return rows;
}

template <class T>
RowsUnderWay<T> start_dispatch_backward(TokenExchange& exchange, const DispatchHandle& handle,
                                        kernel::Matrix<const T> drows) {
  return start_to_tokens<T>(exchange, handle, "dispatch backward", drows);
}

template <class T>
void finish_dispatch_backward(TokenExchange& exchange, const DispatchHandle& handle,
                              RowsUnderWay<T> drows, kernel::Matrix<float> dx) {
  const Returned<T> returned =
      finish_to_tokens<T>(exchange, handle, "dispatch backward", std::move(drows));
  kernel::sum_rows<T>(kernel::Execution(), returned.addresses, handle.slot, dx);
}

template <class T>
RowsUnderWay<T> start_combine_forward(TokenExchange& exchange, const DispatchHandle& handle,
                                      kernel::Matrix<const T> outputs) {
  return start_to_tokens<T>(exchange, handle, "combine forward", outputs);
}

template <class T>
kernel::Matrix<const T> finish_combine_forward(
    TokenExchange& exchange, const DispatchHandle& handle, RowsUnderWay<T> outputs,
    kernel::Matrix<const float> weight, kernel::Matrix<const float> x, kernel::Matrix<float> y) {
  const Returned<T> returned =
      finish_to_tokens<T>(exchange, handle, "combine forward", std::move(outputs));
  kernel::Matrix<T> kept;  // others' memory will hold something else by the time of backward
  if (exchange.is_shared()) {
    kept = kernel::new_matrix<T>("returned rows", handle.num_send, y.extent(1));
  }
  kernel::combine_rows<T>(kernel::Execution(), returned.addresses, handle.slot, weight, x, y, kept);
  return exchange.is_shared() ? kernel::Matrix<const T>(kept) : returned.rows;
}

template <class T>
RowsUnderWay<T> start_combine_backward(TokenExchange& exchange, const DispatchHandle& handle,
                                       kernel::Matrix<const T> sent_outputs,
                                       kernel::Matrix<const float> weight,
                                       kernel::Matrix<const float> dy,
                                       kernel::Matrix<float> dweight) {
  const kernel::Execution execution;
  const std::int64_t width = dy.extent(1), row_bytes = width * std::int64_t{sizeof(T)};
  if (!exchange.reserve(Area::gradients, handle.largest_received * row_bytes)) {
    const auto drows = kernel::new_matrix<T>("output gradients", handle.num_send, width);
    kernel::combine_rows_backward<T>(execution, dy, sent_outputs, handle.slot, weight,
                                     kernel::addresses_of<T>(execution, drows), dweight);
    if (exchange.axis().size() == 1) return {drows, {}, {}};
    return start_to_experts<T>(exchange.axis(), handle, "combine backward", drows);
  }
  exchange.claim(Area::gradients);
  kernel::combine_rows_backward<T>(execution, dy, sent_outputs, handle.slot, weight,
                                   at_owners<T>(exchange, handle, Area::gradients, width), dweight);
  exchange.arrive();
  return {kernel::Matrix<const T>(exchange.memory<T>(Area::gradients, exchange.axis().rank()),
                                  handle.num_received, width),
          {},
          {}};
}

template <class T>
kernel::Matrix<const T> finish_combine_backward(TokenExchange& exchange,
                                                const DispatchHandle& handle,
                                                RowsUnderWay<T> gradients) {
  if (exchange.is_shared()) {
    exchange.await_others("combine backward");
    exchange.lend(Area::gradients);
    count_rows(exchange, handle.receive_counts, gradients.sent.extent(1) * std::int64_t{sizeof(T)});
    return gradients.sent;
  }
  if (exchange.axis().size() == 1) return gradients.sent;
  return finish_to_experts<T>(handle, std::move(gradients));
}

#define TESSERA_INSTANTIATE(T)                                                                     \
  template kernel::Matrix<T> dispatch_forward<T>(TokenExchange&, const DispatchHandle&,            \
                                                 kernel::Matrix<const T>);                         \
  template RowsUnderWay<T> start_dispatch_backward<T>(TokenExchange&, const DispatchHandle&,       \
                                                      kernel::Matrix<const T>);                    \
  template void finish_dispatch_backward<T>(TokenExchange&, const DispatchHandle&,                 \
                                            RowsUnderWay<T>, kernel::Matrix<float>);               \
  template RowsUnderWay<T> start_combine_forward<T>(TokenExchange&, const DispatchHandle&,         \
                                                    kernel::Matrix<const T>);                      \
  template kernel::Matrix<const T> finish_combine_forward<T>(                                      \
      TokenExchange&, const DispatchHandle&, RowsUnderWay<T>, kernel::Matrix<const float>,         \
      kernel::Matrix<const float>, kernel::Matrix<float>);                                         \
  template RowsUnderWay<T> start_combine_backward<T>(                                              \
      TokenExchange&, const DispatchHandle&, kernel::Matrix<const T>, kernel::Matrix<const float>, \
      kernel::Matrix<const float>, kernel::Matrix<float>);                                         \
  template kernel::Matrix<const T> finish_combine_backward<T>(                                     \
      TokenExchange&, const DispatchHandle&, RowsUnderWay<T>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::moe
