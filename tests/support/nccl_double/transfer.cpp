// SPDX-License-Identifier: Apache-2.0
// How the data of one call travels. Sums are formed in rank order, bf16 in float and rounded once:
// as the MPI backend does it, to the bit.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/dtype.hpp"
#include "group.hpp"

namespace nccl_double {
namespace {

bool is_peer_call(CallKind kind) { return kind == CallKind::send || kind == CallKind::receive; }

template <class T, class Sum, class Combine>
void combine(const std::vector<const std::byte*>& parts, std::int64_t count, std::byte* result,
             const Combine& op) {
  auto* to = reinterpret_cast<T*>(result);
  for (std::int64_t i = 0; i < count; ++i) {
    Sum sum = static_cast<Sum>(reinterpret_cast<const T*>(parts[0])[i]);
    for (std::size_t p = 1; p < parts.size(); ++p) {
      sum = op(sum, static_cast<Sum>(reinterpret_cast<const T*>(parts[p])[i]));
    }
    to[i] = static_cast<T>(sum);
  }
}

template <class T, class Sum = T>
void combine(const std::vector<const std::byte*>& parts, std::int64_t count, std::int32_t op,
             std::byte* result) {
  const auto add = [](Sum a, Sum b) { return static_cast<Sum>(a + b); };
  const auto larger = [](Sum a, Sum b) { return std::max(a, b); };
  const auto smaller = [](Sum a, Sum b) { return std::min(a, b); };
  if (op == ncclSum) combine<T, Sum>(parts, count, result, add);
  if (op == ncclMax) combine<T, Sum>(parts, count, result, larger);
  if (op == ncclMin) combine<T, Sum>(parts, count, result, smaller);
}

void combine_any(const std::vector<const std::byte*>& parts, const Call& call, std::byte* result) {
  switch (call.type) {
    case ncclUint8: return combine<std::uint8_t>(parts, call.count, call.op, result);
    case ncclInt32: return combine<std::int32_t>(parts, call.count, call.op, result);
    case ncclInt64: return combine<std::int64_t>(parts, call.count, call.op, result);
    case ncclUint64: return combine<std::uint64_t>(parts, call.count, call.op, result);
    case ncclFloat32: return combine<float>(parts, call.count, call.op, result);
    case ncclFloat64: return combine<double>(parts, call.count, call.op, result);
    case ncclBfloat16: return combine<tessera::bf16, float>(parts, call.count, call.op, result);
    default: misuse("the double sums no " + type_name(call.type));
  }
}

std::byte* at(void* data, std::size_t bytes) { return static_cast<std::byte*>(data) + bytes; }
const std::byte* at(const void* data, std::size_t bytes) {
  return static_cast<const std::byte*>(data) + bytes;
}

}  // namespace

std::vector<int> Transfer::peers() const {
  return is_peer_call(call_.kind) ? std::vector<int>{call_.root} : call_.comm->others();
}

void Transfer::start_signatures() {
  Channel out = Channel::collective, in = Channel::collective;
  if (is_peer_call(call_.kind)) {
    out = call_.kind == CallKind::send ? Channel::sender : Channel::receiver;
    in = call_.kind == CallKind::send ? Channel::receiver : Channel::sender;
  }
  exchange_.start(*call_.comm, peers(), out, in, call_.signature());
}

std::string Transfer::compare() const {
  for (std::size_t i = 0; i < exchange_.peers().size(); ++i) {
    std::string trouble =
        find_mismatch(call_, call_.comm->rank, exchange_.of(i), exchange_.peers()[i]);
    if (!trouble.empty()) return trouble;
  }
  return {};
}

void Transfer::receive(void* to, std::size_t bytes, int rank) {
  const Channel channel = is_peer_call(call_.kind) ? Channel::peer_data : Channel::collective_data;
  MPI_Irecv(to, static_cast<int>(bytes), MPI_BYTE,
            call_.comm->job_ranks[static_cast<std::size_t>(rank)],
            tag_of(call_.comm->context, channel), MPI_COMM_WORLD,
            &requests_.emplace_back(MPI_REQUEST_NULL));
}

void Transfer::post(const void* from, std::size_t bytes, int rank) {
  const Channel channel = is_peer_call(call_.kind) ? Channel::peer_data : Channel::collective_data;
  MPI_Isend(from, static_cast<int>(bytes), MPI_BYTE,
            call_.comm->job_ranks[static_cast<std::size_t>(rank)],
            tag_of(call_.comm->context, channel), MPI_COMM_WORLD,
            &requests_.emplace_back(MPI_REQUEST_NULL));
}

std::byte* Transfer::buffer_of(int rank) {
  parts_.resize(static_cast<std::size_t>(call_.comm->size) * call_.bytes());
  return parts_.data() + static_cast<std::size_t>(rank) * call_.bytes();
}

void Transfer::start_broadcast(const std::vector<int>& others) {
  if (call_.comm->rank != call_.root) return receive(call_.receive, call_.bytes(), call_.root);
  if (call_.receive != call_.send) std::memcpy(call_.receive, call_.send, call_.bytes());
  for (const int rank : others) post(call_.send, call_.bytes(), rank);
}

void Transfer::start_data() {
  const std::vector<int> others = call_.comm->others();
  const std::size_t bytes = call_.bytes();
  const auto block = [&](int rank) { return static_cast<std::size_t>(rank) * bytes; };
  requests_.reserve(2 * others.size() + 1);
  switch (call_.kind) {
    case CallKind::send: return post(call_.send, bytes, call_.root);
    case CallKind::receive: return receive(call_.receive, bytes, call_.root);
    case CallKind::broadcast: return start_broadcast(others);
    case CallKind::all_gather: {
      std::byte* own = at(call_.receive, block(call_.comm->rank));
      if (own != call_.send && bytes > 0) std::memcpy(own, call_.send, bytes);
      for (const int r : others) receive(at(call_.receive, block(r)), bytes, r);
      for (const int r : others) post(call_.send, bytes, r);
      return;
    }
    case CallKind::reduce_scatter:
      for (const int r : others) receive(buffer_of(r), bytes, r);
      for (const int r : others) post(at(call_.send, block(r)), bytes, r);
      return;
    case CallKind::all_reduce:
      for (const int r : others) receive(buffer_of(r), bytes, r);
      for (const int r : others) post(call_.send, bytes, r);
      return;
    case CallKind::split: return;
  }
}

void Transfer::reduce(const std::byte* own, std::byte* result) {
  std::vector<const std::byte*> parts;
  for (int r = 0; r < call_.comm->size; ++r) {
    parts.push_back(r == call_.comm->rank ? own : buffer_of(r));
  }
  combine_any(parts, call_, result);
}

bool Transfer::test_data() {
  if (finished_) return true;
  int done = 1;
  if (!requests_.empty()) {
    MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE);
  }
  if (done == 0) return false;
  finished_ = true;
  if (call_.count == 0) return true;
  auto* result = static_cast<std::byte*>(call_.receive);
  if (call_.kind == CallKind::all_reduce) reduce(at(call_.send, 0), result);
  if (call_.kind == CallKind::reduce_scatter) {
    reduce(at(call_.send, static_cast<std::size_t>(call_.comm->rank) * call_.bytes()), result);
  }
  return true;
}

}  // namespace nccl_double
