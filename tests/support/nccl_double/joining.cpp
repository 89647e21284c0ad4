// SPDX-License-Identifier: Apache-2.0
#include "joining.hpp"

#include <map>

namespace nccl_double {
namespace {

using Stage = ncclComm::Stage;

// Above what Tessera's own messages use, on the job's communicator, which nobody else sends on.
constexpr int first_tag = 1 << 16;
constexpr int join_tag = first_tag;
constexpr int welcome_tag = first_tag + 1;
struct Welcome {
  std::int64_t nonce;
  std::int64_t context;  ///< -1: refused
  std::int32_t ranks[max_ranks];
  char text[256];
};

std::int64_t num_contexts = 0;
// By nonce, where this process is the root.
std::map<std::int64_t, std::vector<Join>> joins;
std::map<std::int64_t, std::string> refused;

void post(const void* data, std::size_t bytes, int job_rank, int tag) {
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, job_rank, tag, MPI_COMM_WORLD, &request);
  MPI_Request_free(&request);
}

template <class Message>
void send(const Message& message, int job_rank, int tag) {
  static std::deque<Message> kept;  // until they are gone, at the latest when the job ends
  kept.push_back(message);
  post(&kept.back(), sizeof(Message), job_rank, tag);
}

template <class Message>
std::optional<Message> received(int tag) {
  int here = 0;
  MPI_Status status;
  MPI_Iprobe(MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &here, &status);
  if (here == 0) return std::nullopt;
  Message message;
  MPI_Recv(&message, sizeof message, MPI_BYTE, status.MPI_SOURCE, tag, MPI_COMM_WORLD,
           MPI_STATUS_IGNORE);
  return message;
}

/// What does not fit together, or empty.
std::string disagreement(const std::vector<Join>& all) {
  for (const Join& join : all) {
    if (join.size != all[0].size) {
      return "rank " + std::to_string(all[0].rank) + " makes a communicator of " +
             std::to_string(all[0].size) + ", rank " + std::to_string(join.rank) + " one of " +
             std::to_string(join.size);
    }
    for (const Join& other : all) {
      if (&other != &join && other.rank == join.rank) {
        return "two processes are rank " + std::to_string(join.rank) + " of a communicator";
      }
    }
  }
  return {};
}

}  // namespace

std::int64_t new_context() { return num_contexts++ * job_size() + job_rank(); }

void send_join(const Join& join, int root) { send(join, root, join_tag); }

int tag_of(std::int64_t context, Channel channel) {
  constexpr int num_channels = static_cast<int>(Channel::num_channels);
  return first_tag + num_channels * static_cast<int>(1 + context % (1 << 20)) +
         static_cast<int>(channel);
}

void serve_joins() {
  while (const auto join = received<Join>(join_tag)) {
    std::vector<Join>& all = joins[join->nonce];
    all.push_back(*join);
    Welcome welcome{join->nonce, -1, {}, {}};
    std::string& trouble = refused[join->nonce];
    if (trouble.empty()) trouble = disagreement(all);
    if (trouble.empty() && static_cast<int>(all.size()) < join->size) continue;
    if (trouble.empty()) {
      welcome.context = new_context();
      for (const Join& each : all) welcome.ranks[each.rank] = each.job_rank;
    }
    trouble.copy(welcome.text, sizeof welcome.text - 1);
    for (const Join& each : all) send(welcome, each.job_rank, welcome_tag);
    all.clear();
  }
}

void take_welcomes() {
  while (const auto welcome = received<Welcome>(welcome_tag)) {
    for (const auto& comm : state().communicators) {
      if (comm->stage != Stage::joining || comm->nonce != welcome->nonce) continue;
      if (welcome->context < 0) {
        misuse(welcome->text);
        comm->set_error(ncclInvalidArgument, welcome->text);
        continue;
      }
      comm->context = welcome->context;
      comm->job_ranks.assign(welcome->ranks, welcome->ranks + comm->size);
      comm->stage = Stage::ready;
    }
  }
}

}  // namespace nccl_double
