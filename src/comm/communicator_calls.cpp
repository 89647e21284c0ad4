// SPDX-License-Identifier: Apache-2.0
// The collectives of Communicator: what each asks of the backend, what it brings, what must agree.
#include <numeric>

#include "base/contract.hpp"
#include "comm/communicator_call.hpp"

namespace tessera::comm {
namespace {

std::int64_t sum(std::span<const std::int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

std::int64_t bytes(std::int64_t count, Dtype dtype) {
  return count * static_cast<std::int64_t>(size_of(dtype));
}

}  // namespace

Request Communicator::start_barrier(std::string_view what) const {
  return start({.operation = OperationKind::barrier, .what = what, .begin = [](Collectives& c) {
                  return c.start_barrier();
                }});
}

Request Communicator::start_barrier(ComputeStream stream, std::string_view what) const {
  return start({.operation = OperationKind::barrier,
                .what = what,
                .begin = [](Collectives& c) { return c.start_barrier(); },
                .stream = &stream});
}

std::string Communicator::broadcast_string(std::string_view what, std::string text,
                                           int root) const {
  std::int64_t length = as_count(text.size());
  broadcast(what, std::span<std::int64_t>(&length, 1), root);
  text.resize(static_cast<std::size_t>(length));
  broadcast(what, std::span<char>(text), root);
  return text;
}

void Communicator::expect_blocks(std::size_t block, std::size_t all) const {
  TESSERA_EXPECT(all == block * static_cast<std::size_t>(size_));
}

Request Communicator::start_broadcast_raw(std::string_view what, void* data, std::int64_t count,
                                          Dtype dtype, int root,
                                          const ComputeStream* stream) const {
  TESSERA_EXPECT(root >= 0 && root < size_);
  return start({OperationKind::broadcast,
                what,
                dtype,
                count,
                root,
                [=](Collectives& c) { return c.start_broadcast(data, count, dtype, root); },
                stream,
                {{data, bytes(count, dtype)}}});
}

Request Communicator::start_all_reduce_raw(std::string_view what, void* data, std::int64_t count,
                                           Dtype dtype, ReduceOp op,
                                           const ComputeStream* stream) const {
  const std::int64_t received = 2 * (size_ - 1) * bytes(count, dtype) / size_;
  count_volume(&Traffic::all_reduce, {received, received});
  return start({OperationKind::all_reduce,
                what,
                dtype,
                count,
                static_cast<std::int32_t>(op),
                [=](Collectives& c) { return c.start_all_reduce(data, count, dtype, op); },
                stream,
                {{data, bytes(count, dtype)}}});
}

Request Communicator::start_all_gather_raw(std::string_view what, const void* mine,
                                           std::int64_t count, void* all, std::int64_t stride,
                                           Dtype dtype, const ComputeStream* stream) const {
  TESSERA_EXPECT(stride >= count);
  const std::int64_t received = (size_ - 1) * bytes(count, dtype);
  count_volume(&Traffic::all_gather, {received, received});
  return start({OperationKind::all_gather,
                what,
                dtype,
                count,
                0,
                [=](Collectives& c) { return c.start_all_gather(mine, count, all, stride, dtype); },
                stream,
                {{mine, bytes(count, dtype)}, {all, bytes((size_ - 1) * stride + count, dtype)}}});
}

Request Communicator::start_reduce_scatter_raw(std::string_view what, const void* all,
                                               std::int64_t all_count, void* mine,
                                               std::int64_t count, Dtype dtype,
                                               const ComputeStream* stream) const {
  TESSERA_EXPECT(all_count == count * size_);
  const std::int64_t received = (size_ - 1) * bytes(count, dtype);
  count_volume(&Traffic::reduce_scatter, {received, received});
  return start({OperationKind::reduce_scatter,
                what,
                dtype,
                count,
                0,
                [=](Collectives& c) { return c.start_reduce_scatter(all, mine, count, dtype); },
                stream,
                {{all, bytes(all_count, dtype)}, {mine, bytes(count, dtype)}}});
}

void Communicator::all_to_all_raw(std::string_view what, const void* send, std::int64_t send_count,
                                  void* receive, std::int64_t receive_count, Dtype dtype) const {
  TESSERA_EXPECT(send_count == receive_count && send_count % size_ == 0);
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(size_), send_count / size_);
  const std::int64_t received = bytes(receive_count - counts[0], dtype);
  count_volume(&Traffic::all_to_all, {received, received});
  start(
      {OperationKind::all_to_all, what, dtype, send_count, 0,
       [&](Collectives& c) { return c.start_all_to_all_v(send, counts, receive, counts, dtype); }})
      .wait();
}

Request Communicator::start_all_to_all_v_raw(std::string_view what, const void* send,
                                             std::span<const std::int64_t> send_counts,
                                             void* receive,
                                             std::span<const std::int64_t> receive_counts,
                                             Dtype dtype, const ComputeStream* stream) const {
  TESSERA_EXPECT(as_count(send_counts.size()) == size_ && as_count(receive_counts.size()) == size_);
  const std::int64_t own = receive_counts[static_cast<std::size_t>(rank_)];
  const std::int64_t received = bytes(sum(receive_counts) - own, dtype);
  count_volume(&Traffic::all_to_all, {received, received});
  return start(
      {OperationKind::all_to_all_v,
       what,
       dtype,
       -1,
       0,
       [&](Collectives& c) {
         return c.start_all_to_all_v(send, send_counts, receive, receive_counts, dtype);
       },
       stream,
       {{send, bytes(sum(send_counts), dtype)}, {receive, bytes(sum(receive_counts), dtype)}}});
}

}  // namespace tessera::comm
