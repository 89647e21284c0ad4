// SPDX-License-Identifier: Apache-2.0
// Dispatch and combine: rows travel to the ranks that own their experts and back, over the expert
// axis. Dropless: every rank takes what is sent to it. dispatch() returns a handle that everything
// later consumes (the idiom of DeepEP). Second and fourth stage of the MoE layer.
#pragma once

#include <cstdint>
#include <vector>

#include "base/block_distribution.hpp"
#include "comm/communicator.hpp"
#include "kernel/view.hpp"
#include "tessera/moe/route.hpp"

namespace tessera::moe {

/// Who sent what to whom. N_send = T * K rows in order of (expert, token); N rows received, grouped
/// by local expert, inside an expert by source rank.
struct DispatchHandle {
  std::vector<std::int64_t> send_counts;     ///< [E ranks] rows to each rank
  std::vector<std::int64_t> receive_counts;  ///< [E ranks] rows from each rank
  std::int64_t num_send = 0;
  std::int64_t num_received = 0;
  kernel::Vector<std::int32_t> send_token;  ///< [N_send] token of each row sent
  kernel::Matrix<std::int32_t> slot;        ///< [T, K] row of each choice in sending order
  kernel::Vector<std::int32_t>
      grouped_order;  ///< [N] arrival row of each grouped row; empty if the same
  kernel::Vector<std::int32_t> row_expert;  ///< [N] local expert of each grouped row
  std::vector<std::int64_t> expert_offset;  ///< [local experts + 1] first grouped row of each
  std::vector<std::int64_t> local_load;     ///< [all experts] rows that this rank sends to each
};

/// Plans the exchange from the router's choice; one small all-to-all of counts.
/// collective over expert_axis, also for a rank without tokens.
DispatchHandle plan_dispatch(const comm::Communicator& expert_axis, std::int64_t num_experts,
                             kernel::Matrix<const std::int32_t> index);

/// x [T, H] T -> rows grouped by local expert [N, H] T. collective over expert_axis.
template <class T>
kernel::Matrix<T> dispatch_forward(const comm::Communicator& expert_axis,
                                   const DispatchHandle& handle, kernel::Matrix<const T> x);
/// Gradient of the above: drows [N, H] T; adds to dx [T, H] f32. collective over expert_axis.
template <class T>
void dispatch_backward(const comm::Communicator& expert_axis, const DispatchHandle& handle,
                       kernel::Matrix<const T> drows, kernel::Matrix<float> dx);

/// Expert outputs [N, H] T return to their tokens: y [T, H] f32 += sum over k of weight * output.
/// Returns the outputs in sending order [N_send, H] for backward. collective over expert_axis.
template <class T>
kernel::Matrix<T> combine_forward(const comm::Communicator& expert_axis,
                                  const DispatchHandle& handle, kernel::Matrix<const T> outputs,
                                  kernel::Matrix<const float> weight, kernel::Matrix<float> y);
/// Gradient of the above for dy [T, H] f32: dweight [T, K] is overwritten (computed where the
/// outputs are); returns the outputs' gradient [N, H] T at the experts. collective over
/// expert_axis.
template <class T>
kernel::Matrix<T> combine_backward(const comm::Communicator& expert_axis,
                                   const DispatchHandle& handle,
                                   kernel::Matrix<const T> sent_outputs,
                                   kernel::Matrix<const float> weight,
                                   kernel::Matrix<const float> dy, kernel::Matrix<float> dweight);

}  // namespace tessera::moe
