// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "communicator.hpp"

namespace nccl_double {
namespace {

const char* kind_name(CallKind kind) {
  switch (kind) {
    case CallKind::broadcast: return "ncclBroadcast";
    case CallKind::all_reduce: return "ncclAllReduce";
    case CallKind::reduce_scatter: return "ncclReduceScatter";
    case CallKind::all_gather: return "ncclAllGather";
    case CallKind::send: return "ncclSend";
    case CallKind::receive: return "ncclRecv";
    case CallKind::split: return "ncclCommSplit";
  }
  return "?";
}

const char* op_name(std::int32_t op) {
  switch (op) {
    case ncclSum: return "sum";
    case ncclMax: return "max";
    case ncclMin: return "min";
    default: return "another operation";
  }
}

}  // namespace

std::string type_name(std::int32_t type) {
  constexpr const char* names[] = {"i8",  "u8",  "i32", "u32", "i64",
                                   "u64", "f16", "f32", "f64", "bf16"};
  return type >= 0 && type < 10 ? names[type] : "type " + std::to_string(type);
}

std::size_t type_bytes(std::int32_t type) {
  constexpr std::size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return bytes[type];
}

std::string describe(const Signature& signature) {
  std::string text = kind_name(signature.kind);
  if (signature.kind == CallKind::split) return text;
  text += " of " + std::to_string(signature.count) + " x " + type_name(signature.type);
  if (signature.kind == CallKind::broadcast) text += " from " + std::to_string(signature.root);
  if (signature.kind == CallKind::send) text += " to " + std::to_string(signature.root);
  if (signature.kind == CallKind::receive) text += " from " + std::to_string(signature.root);
  if (signature.kind == CallKind::all_reduce || signature.kind == CallKind::reduce_scatter) {
    text += std::string(", ") + op_name(signature.op);
  }
  return text;
}

void SignatureExchange::start(const ncclComm& comm, const std::vector<int>& peers, Channel out,
                              Channel in, const Signature& mine) {
  peers_ = peers;
  mine_ = mine;
  theirs_.resize(peers.size());
  receives_.assign(peers.size(), MPI_REQUEST_NULL);
  sends_.assign(peers.size(), MPI_REQUEST_NULL);
  for (std::size_t i = 0; i < peers.size(); ++i) {
    const int job_rank = comm.job_ranks[static_cast<std::size_t>(peers[i])];
    MPI_Irecv(&theirs_[i], sizeof(Signature), MPI_BYTE, job_rank, tag_of(comm.context, in),
              MPI_COMM_WORLD, &receives_[i]);
    MPI_Isend(&mine_, sizeof(Signature), MPI_BYTE, job_rank, tag_of(comm.context, out),
              MPI_COMM_WORLD, &sends_[i]);
  }
}

bool SignatureExchange::test() {
  bool all_done = true;
  for (auto* requests : {&receives_, &sends_}) {
    for (MPI_Request& request : *requests) {
      int done = 0;
      MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      all_done = all_done && done != 0;
    }
  }
  return all_done;
}

std::vector<int> SignatureExchange::missing() const {
  std::vector<int> ranks;
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (receives_[i] != MPI_REQUEST_NULL) ranks.push_back(peers_[i]);
  }
  return ranks;
}

}  // namespace nccl_double
