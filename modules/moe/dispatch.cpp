// SPDX-License-Identifier: Apache-2.0
#include <tessera/moe/dispatch.hpp>

#include "kernel/rows.hpp"

namespace tessera::moe {
namespace {

std::vector<std::int64_t> times(std::vector<std::int64_t> counts, std::int64_t width) {
  for (std::int64_t& count : counts) count *= width;
  return counts;
}

/// Rows in sending order to the experts' ranks; the result is grouped by local expert.
template <class T>
kernel::Matrix<T> to_experts(const comm::Communicator& expert_axis, const DispatchHandle& handle,
                             const char* what, const kernel::Matrix<T>& sent) {
  if (expert_axis.size() == 1) return sent;
  const std::int64_t width = sent.extent(1);
  const auto arrived = kernel::new_matrix<T>("arrived rows", handle.num_received, width);
  kernel::Execution().fence();
  expert_axis.all_to_all_v(
      what, std::span<const T>(sent.data(), sent.size()), times(handle.send_counts, width),
      std::span<T>(arrived.data(), arrived.size()), times(handle.receive_counts, width));
  const auto grouped = kernel::new_matrix<T>("grouped rows", handle.num_received, width);
  kernel::gather_rows<T, T>(kernel::Execution(), arrived, handle.grouped_order, grouped);
  return grouped;
}

/// The way back: grouped rows to the ranks of their tokens, in sending order there.
template <class T>
kernel::Matrix<T> from_experts(const comm::Communicator& expert_axis, const DispatchHandle& handle,
                               const char* what, kernel::Matrix<const T> grouped) {
  const std::int64_t width = grouped.extent(1);
  const auto returned = kernel::new_matrix<T>("returned rows", handle.num_send, width);
  if (expert_axis.size() == 1) {
    Kokkos::deep_copy(returned, grouped);
    return returned;
  }
  const auto leaving = kernel::new_matrix<T>("leaving rows", handle.num_received, width);
  kernel::scatter_rows<T>(kernel::Execution(), grouped, handle.grouped_order, leaving);
  kernel::Execution().fence();
  expert_axis.all_to_all_v(
      what, std::span<const T>(leaving.data(), leaving.size()), times(handle.receive_counts, width),
      std::span<T>(returned.data(), returned.size()), times(handle.send_counts, width));
  return returned;
}

}  // namespace

template <class T>
kernel::Matrix<T> dispatch_forward(const comm::Communicator& expert_axis,
                                   const DispatchHandle& handle, kernel::Matrix<const T> x) {
  const auto sent = kernel::new_matrix<T>("sent rows", handle.num_send, x.extent(1));
  kernel::gather_rows<T, T>(kernel::Execution(), x, handle.send_token, sent);
  return to_experts<T>(expert_axis, handle, "dispatch forward", sent);
}

template <class T>
void dispatch_backward(const comm::Communicator& expert_axis, const DispatchHandle& handle,
                       kernel::Matrix<const T> drows, kernel::Matrix<float> dx) {
  const auto returned = from_experts<T>(expert_axis, handle, "dispatch backward", drows);
  kernel::sum_rows<T>(kernel::Execution(), returned, handle.slot, dx);
}

template <class T>
kernel::Matrix<T> combine_forward(const comm::Communicator& expert_axis,
                                  const DispatchHandle& handle, kernel::Matrix<const T> outputs,
                                  kernel::Matrix<const float> weight, kernel::Matrix<float> y) {
  const auto returned = from_experts<T>(expert_axis, handle, "combine forward", outputs);
  kernel::combine_rows<T>(kernel::Execution(), returned, handle.slot, weight, y);
  return returned;
}

template <class T>
kernel::Matrix<T> combine_backward(const comm::Communicator& expert_axis,
                                   const DispatchHandle& handle,
                                   kernel::Matrix<const T> sent_outputs,
                                   kernel::Matrix<const float> weight,
                                   kernel::Matrix<const float> dy, kernel::Matrix<float> dweight) {
  const auto drows = kernel::new_matrix<T>("output gradients", handle.num_send, dy.extent(1));
  kernel::combine_rows_backward<T>(kernel::Execution(), dy, sent_outputs, handle.slot, weight,
                                   drows, dweight);
  return to_experts<T>(expert_axis, handle, "combine backward", drows);
}

#define TESSERA_INSTANTIATE(T)                                                                     \
  template kernel::Matrix<T> dispatch_forward<T>(const comm::Communicator&, const DispatchHandle&, \
                                                 kernel::Matrix<const T>);                         \
  template void dispatch_backward<T>(const comm::Communicator&, const DispatchHandle&,             \
                                     kernel::Matrix<const T>, kernel::Matrix<float>);              \
  template kernel::Matrix<T> combine_forward<T>(                                                   \
      const comm::Communicator&, const DispatchHandle&, kernel::Matrix<const T>,                   \
      kernel::Matrix<const float>, kernel::Matrix<float>);                                         \
  template kernel::Matrix<T> combine_backward<T>(                                                  \
      const comm::Communicator&, const DispatchHandle&, kernel::Matrix<const T>,                   \
      kernel::Matrix<const float>, kernel::Matrix<const float>, kernel::Matrix<float>);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(bf16)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::moe
