// SPDX-License-Identifier: Apache-2.0
// Dispatch and combine: rows travel to the ranks that own their experts and back, over the expert
// axis. Dropless: every rank takes what is sent to it. plan_dispatch() returns a handle that
// everything later consumes (the idiom of DeepEP). Second and fourth stage of the MoE layer.
#pragma once

#include <cstdint>
#include <vector>

#include "base/block_distribution.hpp"
#include "kernel/view.hpp"
#include "tessera/moe/route.hpp"
#include "tessera/moe/token_exchange.hpp"

namespace tessera::moe {

/// Who sends what to whom. N_send = T * K rows in order of (expert, token); N rows received,
/// grouped by local expert, inside an expert by source rank.
struct DispatchHandle {
  std::vector<std::int64_t> send_counts;     ///< [E ranks] rows to each rank
  std::vector<std::int64_t> receive_counts;  ///< [E ranks] rows from each rank
  std::int64_t num_send = 0;
  std::int64_t num_received = 0;
  kernel::Vector<std::int32_t> send_token;  ///< [N_send] token of each row sent
  kernel::Matrix<std::int32_t> slot;        ///< [T, K] row of each choice in sending order
  kernel::Vector<std::int32_t>
      grouped_order;  ///< [N] arrival row of each grouped row; empty on an axis of one rank
  std::vector<std::int64_t> expert_offset;  ///< [local experts + 1] first grouped row of each
  std::vector<std::int64_t> local_load;     ///< [all experts] rows that this rank sends to each

  // Of ranks that share memory.
  std::int64_t plan_number = 0;
  std::int64_t largest_num_tokens = 0;  ///< T of the rank that has most
  std::int64_t largest_send = 0;        ///< N_send of the rank that sends most
  std::int64_t largest_received = 0;    ///< N of the rank that receives most
  bool tokens_are_written = false;      ///< tokens and order of all ranks lie ready
  /// [all experts] the first row that this rank sends there, as a grouped row of its owner
  std::vector<std::int64_t> row_at_owner;
  /// [E ranks, local experts] rows that arrive, and the first of them in their rank's sending order
  std::vector<std::int64_t> arriving_count, arriving_first;
};

/// Plans the exchange from the router's choice: each rank tells the others how many rows it sends
/// to each expert. collective over the axis, also for a rank without tokens.
DispatchHandle plan_dispatch(TokenExchange& exchange, std::int64_t num_experts,
                             kernel::Matrix<const std::int32_t> index);

/// x [T, H] T -> rows grouped by local expert [N, H] T; x may be exchange.tokens(). collective over
/// the axis.
template <class T>
kernel::Matrix<T> dispatch_forward(TokenExchange& exchange, const DispatchHandle& handle,
                                   kernel::Matrix<const T> x);
/// Rows on their way: between start and finish there is time for what needs none of them.
template <class T>
struct RowsUnderWay {
  kernel::Matrix<const T> sent;
  kernel::Matrix<T> received;  ///< empty where the ranks share memory
  comm::Request request;
};

/// Gradient of dispatch_forward: drows [N, H] T, in exchange.results(), set off to their tokens.
/// collective over the axis.
template <class T>
RowsUnderWay<T> start_dispatch_backward(TokenExchange& exchange, const DispatchHandle& handle,
                                        kernel::Matrix<const T> drows);
/// Adds them to dx [T, H] f32. collective over the axis.
template <class T>
void finish_dispatch_backward(TokenExchange& exchange, const DispatchHandle& handle,
                              RowsUnderWay<T> drows, kernel::Matrix<float> dx);

/// Expert outputs [N, H] T, in exchange.results(), set off to their tokens. collective over the
/// axis.
template <class T>
RowsUnderWay<T> start_combine_forward(TokenExchange& exchange, const DispatchHandle& handle,
                                      kernel::Matrix<const T> outputs);
/// y [T, H] f32 = x + sum over k of weight * output; y may be x. Returns the outputs in sending
/// order [N_send, H] for backward. collective over the axis.
template <class T>
kernel::Matrix<const T> finish_combine_forward(
    TokenExchange& exchange, const DispatchHandle& handle, RowsUnderWay<T> outputs,
    kernel::Matrix<const float> weight, kernel::Matrix<const float> x, kernel::Matrix<float> y);
/// Gradient of the above for dy [T, H] f32: dweight [T, K] is overwritten (computed where the
/// outputs are); the outputs' gradient sets off to the experts. collective over the axis.
template <class T>
RowsUnderWay<T> start_combine_backward(TokenExchange& exchange, const DispatchHandle& handle,
                                       kernel::Matrix<const T> sent_outputs,
                                       kernel::Matrix<const float> weight,
                                       kernel::Matrix<const float> dy,
                                       kernel::Matrix<float> dweight);
/// The outputs' gradient [N, H] T at the experts, valid until the next call with this exchange.
/// collective over the axis.
template <class T>
kernel::Matrix<const T> finish_combine_backward(TokenExchange& exchange,
                                                const DispatchHandle& handle,
                                                RowsUnderWay<T> gradients);

}  // namespace tessera::moe
