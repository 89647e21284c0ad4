// SPDX-License-Identifier: Apache-2.0
// The operations that MPI's backend starts: MPI's own calls, messages between all pairs
// of ranks, and a sum over ranks made of such messages.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "comm/collectives.hpp"

namespace tessera::comm {

MPI_Datatype mpi_type(Dtype dtype);
/// For bf16 an operation of our own, which combines in float and rounds to the nearest even.
MPI_Op mpi_op(ReduceOp op, Dtype dtype);

/// A communicator with its numbers, and a tag for the messages of one operation.
struct MpiGroup {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  int tag = 0;
};

/// MPI's own non-blocking calls. All are made at the start: MPI wants the collectives of a
/// communicator in one order on all ranks, and when a call completes differs between them.
class Calls final : public Operation {
 public:
  MPI_Request* next() { return &requests_.emplace_back(MPI_REQUEST_NULL); }
  bool test() override;

 private:
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
};

/// Messages to and from other ranks, all in flight at once. Receives must be posted before sends.
/// test() compares each length that arrives with the one expected: MPI accepts shorter messages.
class Exchange final : public Operation {
 public:
  explicit Exchange(MpiGroup group) : group_(group) {}
  void receive(void* data, int count, Dtype dtype, int source);
  void send(const void* data, int count, Dtype dtype, int target);
  bool test() override;

 private:
  struct Receive {
    int count;
    int source;
    MPI_Datatype type;
  };
  MPI_Request& next_request() { return requests_.emplace_back(MPI_REQUEST_NULL); }
  void check_lengths() const;

  MpiGroup group_;
  std::vector<Receive> receives_;  // their requests come first
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
};

/// Reduce-scatter by pairs of messages: each rank receives the others' parts of its block, piece by
/// piece through a buffer of a few MiB, and adds them in rank order (bf16 in float, rounded once).
/// So every element is summed in the same order wherever it lives, and what travels is the least
/// possible. (Open MPI's non-blocking call reduces everything to rank 0 and scatters from there.)
class ReduceScatter final : public Operation {
 public:
  /// `all`: group.size x count elements; `mine`: count; max_count: longest message.
  ReduceScatter(MpiGroup group, const void* all, void* mine, std::int64_t count, Dtype dtype,
                std::int64_t max_count);
  ~ReduceScatter() override;
  bool test() override;

 private:
  struct Round {
    Exchange exchange;
    std::vector<std::byte> received;  // one piece of each other rank, in rank order
  };
  std::int64_t piece_begin(std::int64_t piece) const { return piece * piece_count_; }
  int piece_size(std::int64_t piece) const;
  const std::byte* own_part(int owner, std::int64_t piece) const;
  void post(std::int64_t piece);
  void add(std::int64_t piece);

  MpiGroup group_;
  const std::byte* all_;
  std::byte* mine_;
  std::int64_t count_;
  Dtype dtype_;
  std::int64_t piece_count_ = 1;
  std::int64_t num_pieces_ = 0;
  std::int64_t num_posted_ = 0;
  std::int64_t num_added_ = 0;
  std::vector<Round> rounds_;  // two: one is on its way while the other is added
};

}  // namespace tessera::comm
