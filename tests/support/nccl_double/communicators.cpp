// SPDX-License-Identifier: Apache-2.0
// How communicators come and go.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "joining.hpp"

namespace nccl_double {
namespace {

using Stage = ncclComm::Stage;
using Lock = std::unique_lock<std::mutex>;
Lock locked() { return Lock(state().mutex); }

void finish_split(ncclComm& parent) {
  Split& split = *parent.split;
  std::vector<std::pair<std::int64_t, int>> members;  // key, rank of the parent
  std::vector<Signature> all(static_cast<std::size_t>(parent.size));
  for (std::size_t i = 0; i < split.exchange.peers().size(); ++i) {
    const int peer = split.exchange.peers()[i];
    const Signature& theirs = all[static_cast<std::size_t>(peer)] = split.exchange.of(i);
    if (theirs.kind != CallKind::split) {
      parent.set_error(
          misuse("rank " + std::to_string(parent.rank) + " splits " + parent.describe() +
                 " where rank " + std::to_string(peer) + " calls " + describe(theirs)),
          "ranks disagree");
      return;
    }
    if (theirs.root == split.colour) members.emplace_back(theirs.key, peer);
  }
  if (split.made == nullptr) return;
  std::sort(members.begin(), members.end());
  ncclComm& made = *split.made;
  made.size = static_cast<int>(members.size());
  for (int r = 0; r < made.size; ++r) {
    const int of_parent = members[static_cast<std::size_t>(r)].second;
    if (of_parent == parent.rank) made.rank = r;
    made.job_ranks.push_back(parent.job_ranks[static_cast<std::size_t>(of_parent)]);
  }
  made.context = all[static_cast<std::size_t>(members.front().second)].context;
  made.stage = Stage::ready;
}

ncclComm* new_communicator(const ncclConfig_t* config) {
  state().communicators.push_back(std::make_unique<ncclComm>());
  ncclComm* made = state().communicators.back().get();
  made->blocking = config == nullptr || config->blocking != 0;
  return made;
}

/// A call on a communicator that may not be blocked goes on in the background.
ncclResult_t finish(Lock& lock, ncclComm& comm) {
  if (!comm.blocking) return ncclInProgress;
  while (comm.error == ncclSuccess && (comm.stage == Stage::joining || comm.split)) {
    advance_communicators();
    lock.unlock();
    lock.lock();
  }
  return comm.error;
}

ncclComm* find(ncclComm_t comm) {
  for (const auto& each : state().communicators) {
    if (each.get() == comm) return each.get();
  }
  return nullptr;
}

}  // namespace

void advance_communicators() {
  if (std::this_thread::get_id() != state().main_thread) return;
  serve_joins();
  take_welcomes();
  for (std::size_t i = 0; i < state().communicators.size(); ++i) {
    ncclComm& comm = *state().communicators[i];
    if (!comm.split || comm.stage != Stage::ready || !comm.split->exchange.test()) continue;
    finish_split(comm);
    comm.split.reset();
  }
}

ncclResult_t check_usable(ncclComm_t handle, const char* call) {
  const ncclComm* comm = find(handle);
  const std::string name = call;
  if (comm == nullptr) return misuse(name + ": no such communicator");
  switch (comm->stage) {
    case Stage::aborted: return misuse(name + " after ncclCommAbort on " + comm->describe());
    case Stage::destroyed: return misuse(name + " after ncclCommDestroy on " + comm->describe());
    case Stage::finalized: return misuse(name + " after ncclCommFinalize on " + comm->describe());
    case Stage::joining:
      return misuse(name +
                    " on a communicator that is still being made: "
                    "ncclCommGetAsyncError has to say ncclSuccess first");
    case Stage::ready: break;
  }
  if (comm->polls_in_progress > 0 || comm->split) {
    return misuse(name + " on " + comm->describe() +
                  " while the call before is in progress: ncclCommGetAsyncError has to say "
                  "ncclSuccess first");
  }
  return comm->error;
}

}  // namespace nccl_double

using namespace nccl_double;

std::string ncclComm::describe() const {
  return "communicator " + std::to_string(context) + " (rank " + std::to_string(rank) + " of " +
         std::to_string(size) + ")";
}

std::vector<int> ncclComm::others() const {
  std::vector<int> ranks;
  for (int r = 0; r < size; ++r) {
    if (r != rank) ranks.push_back(r);
  }
  return ranks;
}

ncclResult_t ncclGetVersion(int* version) {
  const char* other = std::getenv("NCCL_DOUBLE_VERSION");
  *version = other != nullptr ? std::atoi(other) : NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const Lock lock = locked();
  static std::int64_t num_identities = 0;
  const Identity identity{job_rank(), (++num_identities) * job_size() + job_rank()};
  std::memcpy(id->internal, &identity, sizeof identity);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* made, int num_ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  Lock lock = locked();
  Identity identity;
  std::memcpy(&identity, id.internal, sizeof identity);
  if (num_ranks < 1 || num_ranks > std::min(max_ranks, job_size()) || rank < 0 ||
      rank >= num_ranks) {
    return misuse("ncclCommInitRankConfig: rank " + std::to_string(rank) + " of " +
                  std::to_string(num_ranks) + " in a job of " + std::to_string(job_size()));
  }
  ncclComm* comm = *made = new_communicator(config);
  comm->rank = rank;
  comm->size = num_ranks;
  comm->nonce = identity.nonce;
  send_join({identity.nonce, rank, num_ranks, job_rank()}, identity.root);
  return finish(lock, *comm);
}

ncclResult_t ncclCommSplit(ncclComm_t parent, int colour, int key, ncclComm_t* made,
                           ncclConfig_t* config) {
  Lock lock = locked();
  if (const ncclResult_t code = check_usable(parent, "ncclCommSplit"); code != ncclSuccess) {
    return code;
  }
  if (!parent->groups.empty()) {
    return misuse("ncclCommSplit of " + parent->describe() + " while its operations are in flight");
  }
  *made = colour == NCCL_SPLIT_NOCOLOR ? nullptr : new_communicator(config);
  parent->split.emplace();
  parent->split->made = *made;
  parent->split->colour = colour;
  std::vector<int> all = parent->others();
  all.push_back(parent->rank);
  parent->split->exchange.start(*parent, all, Channel::collective, Channel::collective,
                                {.root = colour, .key = key, .context = new_context()});
  return finish(lock, *parent);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const Lock lock = locked();
  if (const ncclResult_t code = check_usable(comm, "ncclCommFinalize"); code != ncclSuccess) {
    return code;
  }
  comm->stage = Stage::finalized;
  return comm->blocking ? ncclSuccess : ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const Lock lock = locked();
  if (find(comm) == nullptr || comm->stage == Stage::destroyed || comm->stage == Stage::aborted) {
    return misuse("ncclCommDestroy of a communicator that is no more");
  }
  if (!comm->blocking && comm->stage != Stage::finalized) {
    return misuse("ncclCommDestroy of " + comm->describe() +
                  ", which is not blocking, without ncclCommFinalize");
  }
  if (!comm->groups.empty()) {
    return misuse("ncclCommDestroy of " + comm->describe() + " while its operations are in flight");
  }
  comm->stage = Stage::destroyed;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const Lock lock = locked();
  if (find(comm) == nullptr || comm->stage == Stage::destroyed || comm->stage == Stage::aborted) {
    return misuse("ncclCommAbort of a communicator that is no more");
  }
  comm->stage = Stage::aborted;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const Lock lock = locked();
  if (find(comm) == nullptr || comm->stage == Stage::destroyed || comm->stage == Stage::aborted) {
    return misuse("ncclCommGetAsyncError of a communicator that is no more");
  }
  if (group_is_open()) return misuse("ncclCommGetAsyncError: ncclGroupEnd is missing");
  // Whoever asks for the end of a call wants to go on, not to wait for data.
  if (comm->polls_in_progress > 0) {
    *error = --comm->polls_in_progress > 0 ? ncclInProgress : comm->error;
    return ncclSuccess;
  }
  advance_communicators();
  advance_all();
  const bool goes_on = comm->stage == Stage::joining || comm->split ||
                       (comm->stage == Stage::finalized && !comm->groups.empty());
  *error = comm->error == ncclSuccess && goes_on ? ncclInProgress : comm->error;
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->size;
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->rank;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    case ncclNumResults: break;
  }
  return "unknown result code";
}
