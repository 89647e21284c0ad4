// SPDX-License-Identifier: Apache-2.0
// Collectives by MPI's non-blocking calls. All-to-all and reduce-scatter go by pairs of messages:
// no int displacement to overflow, and every length that arrives is compared with the one expected.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/contract.hpp"
#include "comm/collectives.hpp"
#include "comm/operations_mpi.hpp"

namespace tessera::comm {
namespace {

class MpiCollectives final : public Collectives {
 public:
  MpiCollectives(MPI_Comm comm, std::int64_t max_count, BlockCopy copy)
      : comm_(comm), max_count_(max_count), copy_(std::move(copy)) {
    check_mpi(MPI_Comm_rank(comm, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(comm, &size_), "MPI_Comm_size");
  }

  Started start_barrier() override {
    auto calls = std::make_unique<Calls>();
    check_mpi(MPI_Ibarrier(comm_, calls->next()), "MPI_Ibarrier");
    return calls;
  }

  Started start_broadcast(void* data, std::int64_t count, Dtype dtype, int root) override {
    auto calls = std::make_unique<Calls>();
    if (size_ > 1) broadcast(*calls, data, count, dtype, root);
    return calls;
  }

  Started start_all_reduce(void* data, std::int64_t count, Dtype dtype, ReduceOp op) override {
    auto calls = std::make_unique<Calls>();
    if (size_ == 1) return calls;
    for_pieces(count, [&](std::int64_t begin, int n) {
      check_mpi(MPI_Iallreduce(MPI_IN_PLACE, offset(data, begin, dtype), n, mpi_type(dtype),
                               mpi_op(op, dtype), comm_, calls->next()),
                "MPI_Iallreduce");
    });
    return calls;
  }

  Started start_all_gather(const void* mine, std::int64_t count, void* all, std::int64_t stride,
                           Dtype dtype) override {
    auto calls = std::make_unique<Calls>();
    void* own = offset(all, rank_ * stride, dtype);
    if (size_ == 1 || count * size_ > max_count_) {
      if (mine != own) copy(mine, own, count, dtype);
      broadcast_blocks(*calls, all, count, stride, dtype);
      return calls;
    }
    MPI_Datatype block = block_type(count, stride, mpi_type(dtype));
    check_mpi(MPI_Iallgather(mine == own ? MPI_IN_PLACE : mine, static_cast<int>(count),
                             mpi_type(dtype), all, 1, block, comm_, calls->next()),
              "MPI_Iallgather");
    check_mpi(MPI_Type_free(&block), "MPI_Type_free");  // once the operation is complete
    return calls;
  }

  Started start_reduce_scatter(const void* all, void* mine, std::int64_t count,
                               Dtype dtype) override {
    return std::make_unique<ReduceScatter>(next_group(), all, mine, count, dtype, max_count_);
  }

  Started start_all_to_all_v(const void* send, std::span<const std::int64_t> send_counts,
                             void* receive, std::span<const std::int64_t> receive_counts,
                             Dtype dtype) override {
    auto exchange = std::make_unique<Exchange>(next_group());
    for_blocks(receive_counts, [&](int source, std::int64_t begin, int n) {
      exchange->receive(offset(receive, begin, dtype), n, dtype, source);
    });
    for_blocks(send_counts, [&](int target, std::int64_t begin, int n) {
      exchange->send(offset(send, begin, dtype), n, dtype, target);
    });
    copy_own_block(send, send_counts, receive, receive_counts, dtype);
    return exchange;
  }

 private:
  void copy(const void* from, void* to, std::int64_t count, Dtype dtype) const {
    const std::size_t bytes = static_cast<std::size_t>(count) * size_of(dtype);
    if (bytes == 0) return;
    if (copy_) return copy_(from, to, bytes);
    std::memcpy(to, from, bytes);
  }
  static void* offset(void* data, std::int64_t elements, Dtype dtype) {
    return static_cast<std::byte*>(data) + elements * static_cast<std::int64_t>(size_of(dtype));
  }
  static const void* offset(const void* data, std::int64_t elements, Dtype dtype) {
    return static_cast<const std::byte*>(data) +
           elements * static_cast<std::int64_t>(size_of(dtype));
  }

  template <class Visit>
  void for_pieces(std::int64_t count, Visit&& visit) const {
    for (std::int64_t begin = 0; begin < count; begin += max_count_) {
      visit(begin, static_cast<int>(std::min(max_count_, count - begin)));
    }
  }

  // Visits the pieces of every other rank's block; an empty block is one empty message, so that a
  // sender and a receiver that disagree are found out.
  template <class Visit>
  void for_blocks(std::span<const std::int64_t> counts, Visit&& visit) const {
    std::int64_t block = 0;
    for (int r = 0; r < size_; ++r) {
      const std::int64_t count = counts[static_cast<std::size_t>(r)];
      if (r != rank_ && count == 0) visit(r, block, 0);
      if (r != rank_) {
        for_pieces(count, [&](std::int64_t begin, int n) { visit(r, block + begin, n); });
      }
      block += count;
    }
  }

  void copy_own_block(const void* send, std::span<const std::int64_t> send_counts, void* receive,
                      std::span<const std::int64_t> receive_counts, Dtype dtype) const {
    const auto own = static_cast<std::size_t>(rank_);
    TESSERA_EXPECT(send_counts[own] == receive_counts[own]);
    std::int64_t send_begin = 0, receive_begin = 0;
    for (std::size_t r = 0; r < own; ++r) {
      send_begin += send_counts[r];
      receive_begin += receive_counts[r];
    }
    copy(offset(send, send_begin, dtype), offset(receive, receive_begin, dtype), send_counts[own],
         dtype);
  }

  static MPI_Datatype block_type(std::int64_t count, std::int64_t stride, MPI_Datatype element) {
    MPI_Aint lower = 0, extent = 0;
    MPI_Datatype dense = MPI_DATATYPE_NULL, block = MPI_DATATYPE_NULL;
    check_mpi(MPI_Type_get_extent(element, &lower, &extent), "MPI_Type_get_extent");
    check_mpi(MPI_Type_contiguous(static_cast<int>(count), element, &dense), "MPI_Type_contiguous");
    check_mpi(MPI_Type_create_resized(dense, 0, stride * extent, &block),
              "MPI_Type_create_resized");
    check_mpi(MPI_Type_free(&dense), "MPI_Type_free");
    check_mpi(MPI_Type_commit(&block), "MPI_Type_commit");
    return block;
  }

  // MPI_Iallgather counts the elements of all blocks together in int: this does not.
  void broadcast_blocks(Calls& calls, void* all, std::int64_t count, std::int64_t stride,
                        Dtype dtype) const {
    for (int r = 0; r < size_ && size_ > 1; ++r) {
      broadcast(calls, offset(all, r * stride, dtype), count, dtype, r);
    }
  }

  void broadcast(Calls& calls, void* data, std::int64_t count, Dtype dtype, int root) const {
    for_pieces(count, [&](std::int64_t begin, int n) {
      check_mpi(
          MPI_Ibcast(offset(data, begin, dtype), n, mpi_type(dtype), root, comm_, calls.next()),
          "MPI_Ibcast");
    });
  }

  // A tag for each operation: a rank that is out of order waits and is found out at the deadline,
  // and never takes the data of another operation for its own. MPI guarantees tags up to 32767.
  MpiGroup next_group() {
    tag_ = (tag_ + 1) % 32768;
    return {comm_, rank_, size_, tag_};
  }

  MPI_Comm comm_;
  std::int64_t max_count_;
  BlockCopy copy_;
  int rank_ = 0;
  int size_ = 1;
  int tag_ = 0;
};

}  // namespace

const char* to_string(OperationKind kind) {
  switch (kind) {
    case OperationKind::barrier: return "barrier";
    case OperationKind::broadcast: return "broadcast";
    case OperationKind::all_reduce: return "all_reduce";
    case OperationKind::all_gather: return "all_gather";
    case OperationKind::reduce_scatter: return "reduce_scatter";
    case OperationKind::all_to_all: return "all_to_all";
    case OperationKind::all_to_all_v: return "all_to_all_v";
    case OperationKind::split: return "split";
    case OperationKind::split_node: return "split_node";
  }
  return "?";
}

const char* to_string(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return "sum";
    case ReduceOp::max: return "max";
    case ReduceOp::min: return "min";
  }
  return "?";
}

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(ErrorKind::communication, "{} failed: {}", call, text);
}

std::shared_ptr<Collectives> make_mpi_collectives(MPI_Comm communicator, std::int64_t max_count,
                                                  BlockCopy copy) {
  return std::make_shared<MpiCollectives>(communicator, max_count, std::move(copy));
}

}  // namespace tessera::comm
