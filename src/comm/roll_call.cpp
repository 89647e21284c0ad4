// SPDX-License-Identifier: Apache-2.0
#include "comm/roll_call.hpp"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "base/host_name.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {
namespace {

using Clock = std::chrono::steady_clock;
using HostName = std::array<char, 32>;
enum Tag { question = 1, answer = 2 };

struct RollCall {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0, size = 1;
  std::vector<HostName> hosts;  // of all ranks
  std::vector<bool> heard;      // this rank alone uses it, once it asks
  std::thread::id thread;
};

std::optional<RollCall> roll_call;

bool is_mine() { return roll_call && roll_call->thread == std::this_thread::get_id(); }

/// Nobody waits for it: an empty message needs no buffer and no completion.
void send(Tag tag, int rank) {
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Isend(nullptr, 0, MPI_BYTE, rank, tag, roll_call->comm, &request) == MPI_SUCCESS)
    MPI_Request_free(&request);
}

/// Takes the messages that are there; the rank of each is heard.
template <class Handle>
void receive(Tag tag, Handle&& handle) {
  for (;;) {
    int is_there = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, tag, roll_call->comm, &is_there, &status) != MPI_SUCCESS ||
        is_there == 0)
      return;
    MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, tag, roll_call->comm, MPI_STATUS_IGNORE);
    roll_call->heard[static_cast<std::size_t>(status.MPI_SOURCE)] = true;
    handle(status.MPI_SOURCE);
  }
}

/// So that a large job does not send as many messages as the square of its ranks.
bool asks() {
  constexpr int num_asking = 16;
  return roll_call->rank % std::max(1, roll_call->size / num_asking) == 0;
}

std::string describe_missing() {
  constexpr int num_named = 16;
  std::string names;
  int num_missing = 0;
  for (int rank = 0; rank < roll_call->size; ++rank) {
    const auto idx = static_cast<std::size_t>(rank);
    if (roll_call->heard[idx] || ++num_missing > num_named) continue;
    names += fmt::format("{}rank {} ({})", names.empty() ? "" : ", ", rank,
                         roll_call->hosts[idx].data());
  }
  if (num_missing == 0) return "all ranks answer (one is far behind or went another way)";
  if (num_missing > num_named) names += fmt::format(" and {} more", num_missing - num_named);
  return "no sign of " + names + " (gone, stopped or busy elsewhere)";
}

}  // namespace

void open_roll_call() {
  RollCall& call = roll_call.emplace();
  call.thread = std::this_thread::get_id();
  MPI_Comm_dup(MPI_COMM_WORLD, &call.comm);
  MPI_Comm_set_errhandler(call.comm, MPI_ERRORS_RETURN);
  MPI_Comm_rank(call.comm, &call.rank);
  MPI_Comm_size(call.comm, &call.size);
  HostName own{};
  host_name().copy(own.data(), own.size() - 1);
  call.hosts.resize(static_cast<std::size_t>(call.size));
  call.heard.resize(static_cast<std::size_t>(call.size));
  constexpr int name_bytes = sizeof(HostName);
  MPI_Allgather(own.data(), name_bytes, MPI_BYTE, call.hosts.data(), name_bytes, MPI_BYTE,
                call.comm);
}

void close_roll_call() {
  if (!roll_call) return;
  MPI_Comm_free(&roll_call->comm);
  roll_call.reset();
}

void answer_roll_call() {
  if (is_mine()) receive(question, [](int rank) { send(answer, rank); });
}

std::string call_roll() {
  if (!is_mine()) return "";
  constexpr std::chrono::seconds patience{3};
  const Phase phase("roll call", 5 * patience);  // MPI may be in no state to say anything
  std::fill(roll_call->heard.begin(), roll_call->heard.end(), false);
  roll_call->heard[static_cast<std::size_t>(roll_call->rank)] = true;
  for (int rank = 0; asks() && rank < roll_call->size; ++rank)
    if (rank != roll_call->rank) send(question, rank);
  for (const auto end = Clock::now() + patience; Clock::now() < end;) {
    answer_roll_call();
    receive(answer, [](int) {});
    if (std::ranges::count(roll_call->heard, false) == 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return asks() ? describe_missing() : "";
}

}  // namespace tessera::comm
