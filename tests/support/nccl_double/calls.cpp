// SPDX-License-Identifier: Apache-2.0
// NCCL's calls: what each has to keep to, and how they are gathered into groups.
#include <algorithm>
#include <cstdlib>
#include <utility>

#include "group.hpp"

namespace nccl_double {
namespace {

using Lock = std::unique_lock<std::mutex>;
Lock locked() { return Lock(state().mutex); }

int group_depth = 0;
std::vector<Call> open_calls;

const std::byte* bytes_at(const void* data) { return static_cast<const std::byte*>(data); }

bool is_reduction(CallKind kind) {
  return kind == CallKind::all_reduce || kind == CallKind::reduce_scatter;
}

/// Where one buffer may lie in the other; it may not overlap it anywhere else.
const std::byte* in_place(const Call& call) {
  const std::size_t own = static_cast<std::size_t>(call.comm->rank) * call.bytes();
  switch (call.kind) {
    case CallKind::all_gather: return bytes_at(call.receive) + own;
    case CallKind::reduce_scatter: return bytes_at(call.send) + own;
    default: return bytes_at(call.receive);
  }
}

/// Gives all calls of one communicator to their stream.
ncclResult_t launch(ncclComm& comm, const std::vector<Call>& calls) {
  for (const Call& call : calls) {
    for (const Call& other : calls) {
      if (&other == &call) break;
      if (const std::string trouble = find_conflict(call, other); !trouble.empty()) {
        return misuse(trouble);
      }
    }
  }
  std::int64_t bytes = 0;
  for (const Call& call : calls) bytes += static_cast<std::int64_t>(call.bytes());
  const auto group = std::make_shared<Group>(comm, calls);
  comm.groups.push_back(group);
  enqueue(*find_stream(calls.front().stream), group,
          {.kind = Record::Kind::collective, .bytes = bytes});
  if (comm.blocking) return ncclSuccess;
  comm.polls_in_progress = 2;
  return ncclInProgress;
}

ncclResult_t launch_all() {
  const std::vector<Call> calls = std::exchange(open_calls, {});
  ncclResult_t result = ncclSuccess;
  std::vector<ncclComm_t> communicators;
  for (const Call& call : calls) {
    if (std::find(communicators.begin(), communicators.end(), call.comm) == communicators.end()) {
      communicators.push_back(call.comm);
    }
  }
  for (ncclComm_t comm : communicators) {
    std::vector<Call> own;
    std::copy_if(calls.begin(), calls.end(), std::back_inserter(own),
                 [&](const Call& call) { return call.comm == comm; });
    const ncclResult_t code = launch(*comm, own);
    if (code != ncclSuccess && result != ncclInvalidUsage) result = code;
  }
  return result;
}

ncclResult_t make(const char* name, const Call& call) {
  const Lock lock = locked();
  if (const ncclResult_t code = check_usable(call.comm, name); code != ncclSuccess) return code;
  if (const std::string fault = find_fault(call); !fault.empty()) {
    return misuse(std::string(name) + " on " + call.comm->describe() + ": " + fault);
  }
  open_calls.push_back(call);
  return group_depth > 0 ? ncclSuccess : launch_all();
}

}  // namespace

bool group_is_open() { return !open_calls.empty(); }

std::vector<Range> Call::ranges() const {
  const std::size_t all = bytes() * static_cast<std::size_t>(comm->size);
  const bool scatters = kind == CallKind::reduce_scatter, gathers = kind == CallKind::all_gather;
  const bool reads = send != nullptr && (kind != CallKind::broadcast || comm->rank == root);
  std::vector<Range> result;
  const Range written{bytes_at(receive), gathers ? all : bytes(), true};
  const Range read{bytes_at(send), scatters ? all : bytes(), false};
  const bool is_part = receive != nullptr && read.begin >= written.begin &&
                       read.begin + read.bytes <= written.begin + written.bytes;
  if (reads && !is_part && read.bytes > 0) result.push_back(read);
  if (receive != nullptr && written.bytes > 0) result.push_back(written);
  return result;
}

std::vector<Range> Call::filled() const {
  const auto* to = bytes_at(receive);
  const std::size_t before = bytes() * static_cast<std::size_t>(comm->rank);
  const std::size_t after = bytes() * static_cast<std::size_t>(comm->size - comm->rank - 1);
  if (count == 0) return {};
  switch (kind) {
    case CallKind::all_gather: return {{to, before, true}, {to + before + bytes(), after, true}};
    case CallKind::broadcast:
      if (comm->rank == root) return {};
      [[fallthrough]];
    case CallKind::receive: return {{to, bytes(), true}};
    case CallKind::reduce_scatter:
      if (in_place(*this) == to) return {};
      return {{to, bytes(), true}};
    default: return {};
  }
}

Signature Call::signature() const {
  return {.kind = kind, .type = type, .op = op, .root = root, .count = count};
}

std::string find_fault(const Call& call) {
  if (find_stream(call.stream) == nullptr) return "no such stream";
  if (call.type < 0 || call.type > ncclBfloat16) return "no such type";
  if (call.root < 0 || call.root >= call.comm->size) {
    return "rank " + std::to_string(call.root) + " is outside the communicator";
  }
  const bool is_peer = call.kind == CallKind::send || call.kind == CallKind::receive;
  if (is_peer && call.root == call.comm->rank) return "the double sends nothing to itself";
  if (call.count == 0) return {};
  const bool needs_send = call.kind != CallKind::receive &&
                          (call.kind != CallKind::broadcast || call.comm->rank == call.root);
  if (needs_send && call.send == nullptr) return "nothing to send";
  if (call.kind != CallKind::send && call.receive == nullptr) return "nowhere to receive";
  if (is_peer || !needs_send) return {};
  const std::size_t all = call.bytes() * static_cast<std::size_t>(call.comm->size);
  const Range send{bytes_at(call.send), call.kind == CallKind::reduce_scatter ? all : call.bytes(),
                   false};
  const Range receive{bytes_at(call.receive),
                      call.kind == CallKind::all_gather ? all : call.bytes(), true};
  const std::byte* own =
      call.kind == CallKind::reduce_scatter ? bytes_at(call.receive) : bytes_at(call.send);
  if (send.overlaps(receive) && own != in_place(call)) {
    return "what is sent overlaps what is received, and is not in place";
  }
  return {};
}

std::string find_conflict(const Call& call, const Call& other) {
  if (call.stream != other.stream) return "the double takes one stream for a group";
  for (const Range& mine : call.ranges()) {
    for (const Range& theirs : other.ranges()) {
      if (!mine.conflicts(theirs)) continue;
      return "in one group " + describe(other.signature()) + " and " + describe(call.signature()) +
             " touch the same memory";
    }
  }
  return {};
}

std::string find_mismatch(const Call& mine, int my_rank, const Signature& theirs, int their_rank) {
  const Signature own = mine.signature();
  const bool is_send = own.kind == CallKind::send, is_receive = own.kind == CallKind::receive;
  const bool fits = theirs.count == own.count && theirs.type == own.type &&
                    (is_send      ? theirs.kind == CallKind::receive
                     : is_receive ? theirs.kind == CallKind::send
                                  : theirs.kind == own.kind && theirs.root == own.root) &&
                    (!is_reduction(own.kind) || theirs.op == own.op);
  if (fits) return {};
  const bool first = my_rank < their_rank;
  const std::string here = "rank " + std::to_string(my_rank) + " calls " + describe(own);
  const std::string there = "rank " + std::to_string(their_rank) + " calls " + describe(theirs);
  return "on communicator " + std::to_string(mine.comm->context) + " " + (first ? here : there) +
         " where " + (first ? there : here);
}

}  // namespace nccl_double

using namespace nccl_double;

ncclResult_t ncclGroupStart() {
  const Lock lock = locked();
  ++group_depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const Lock lock = locked();
  if (group_depth == 0) return misuse("ncclGroupEnd without ncclGroupStart");
  return --group_depth > 0 ? ncclSuccess : launch_all();
}

ncclResult_t ncclBroadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
  return make("ncclBroadcast",
              {CallKind::broadcast, send, receive, static_cast<std::int64_t>(count), type, ncclSum,
               root, comm, stream});
}

ncclResult_t ncclAllReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return make("ncclAllReduce", {CallKind::all_reduce, send, receive,
                                static_cast<std::int64_t>(count), type, op, 0, comm, stream});
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, std::size_t count,
                               ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                               cudaStream_t stream) {
  return make("ncclReduceScatter", {CallKind::reduce_scatter, send, receive,
                                    static_cast<std::int64_t>(count), type, op, 0, comm, stream});
}

ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return make("ncclAllGather", {CallKind::all_gather, send, receive,
                                static_cast<std::int64_t>(count), type, ncclSum, 0, comm, stream});
}

ncclResult_t ncclSend(const void* send, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return make("ncclSend", {CallKind::send, send, nullptr, static_cast<std::int64_t>(count), type,
                           ncclSum, peer, comm, stream});
}

ncclResult_t ncclRecv(void* receive, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return make("ncclRecv", {CallKind::receive, nullptr, receive, static_cast<std::int64_t>(count),
                           type, ncclSum, peer, comm, stream});
}

ncclResult_t ncclMemAlloc(void** memory, std::size_t bytes) {
  return cudaMallocHost(memory, bytes) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclMemFree(void* memory) {
  std::free(memory);
  return ncclSuccess;
}

const char* ncclGetLastError(ncclComm_t comm) {
  const Lock lock = locked();
  if (comm == nullptr) return "";
  if (comm->error == ncclSuccess) {
    const auto first = comm->groups.empty() ? nullptr : comm->groups.front().lock();
    comm->text = first ? first->waits_for() : "";
  }
  return comm->text.c_str();
}
