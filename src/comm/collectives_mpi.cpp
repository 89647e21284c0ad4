// SPDX-License-Identifier: Apache-2.0
// Collectives by MPI's non-blocking calls. All-to-all goes by pairs of messages, as NCCL has it: no
// int displacement to overflow, and every length that arrives is compared with the one expected.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "base/contract.hpp"
#include "comm/collectives.hpp"

namespace tessera::comm {
namespace {

constexpr int kAllToAllTag = 17;

MPI_Datatype mpi_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::u8: return MPI_UINT8_T;
    case Dtype::i32: return MPI_INT32_T;
    case Dtype::i64: return MPI_INT64_T;
    case Dtype::u64: return MPI_UINT64_T;
    case Dtype::f16:
    case Dtype::bf16: return MPI_UINT16_T;
    case Dtype::f32: return MPI_FLOAT;
    case Dtype::f64: return MPI_DOUBLE;
  }
  return MPI_DATATYPE_NULL;
}

struct Add {
  float operator()(float a, float b) const { return a + b; }
};
struct Larger {
  float operator()(float a, float b) const { return std::fmax(a, b); }
};
struct Smaller {
  float operator()(float a, float b) const { return std::fmin(a, b); }
};

// Each addition happens in float and is rounded to the nearest even bf16.
template <class Combine>
void reduce_bf16(void* in, void* in_out, int* count, MPI_Datatype*) {
  const auto* a = static_cast<const bf16*>(in);
  auto* b = static_cast<bf16*>(in_out);
  for (int i = 0; i < *count; ++i) b[i] = bf16(Combine{}(a[i], b[i]));
}

// Made once per process and never freed: MPI_Finalize takes them along.
template <class Combine>
MPI_Op bf16_op() {
  static const MPI_Op op = [] {
    MPI_Op made = MPI_OP_NULL;
    check_mpi(MPI_Op_create(reduce_bf16<Combine>, 1, &made), "MPI_Op_create");
    return made;
  }();
  return op;
}

MPI_Op mpi_op(ReduceOp op, Dtype dtype) {
  TESSERA_EXPECT(dtype != Dtype::f16);  // f16 is met in files only; nothing computes with it
  const bool is_bf16 = dtype == Dtype::bf16;
  switch (op) {
    case ReduceOp::sum: return is_bf16 ? bf16_op<Add>() : MPI_SUM;
    case ReduceOp::max: return is_bf16 ? bf16_op<Larger>() : MPI_MAX;
    case ReduceOp::min: return is_bf16 ? bf16_op<Smaller>() : MPI_MIN;
  }
  return MPI_OP_NULL;
}

void check_all(int code, const std::vector<MPI_Status>& statuses, const char* call) {
  if (code != MPI_ERR_IN_STATUS) return check_mpi(code, call);
  for (const MPI_Status& status : statuses) {
    if (status.MPI_ERROR != MPI_ERR_PENDING) check_mpi(status.MPI_ERROR, call);
  }
}

// Calls that follow one another; each starts when the one before is complete.
class Sequence final : public Operation {
 public:
  using Step = std::function<void(MPI_Request*)>;

  explicit Sequence(std::vector<Step> steps) : steps_(std::move(steps)) { start_next(); }

  bool test() override {
    while (request_ != MPI_REQUEST_NULL) {
      int done = 0;
      check_mpi(MPI_Test(&request_, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done == 0) return false;
      start_next();
    }
    return true;
  }

 private:
  void start_next() {
    request_ = MPI_REQUEST_NULL;
    if (next_ < steps_.size()) steps_[next_++](&request_);
  }

  std::vector<Step> steps_;
  std::size_t next_ = 0;
  MPI_Request request_ = MPI_REQUEST_NULL;
};

// Messages to and from each other rank, all in flight at once. Messages between two ranks keep
// their order, so consecutive exchanges need no tags of their own.
class Exchange final : public Operation {
 public:
  void receive(MPI_Comm comm, void* data, int count, MPI_Datatype type, int source) {
    receives_.push_back({count, source, type});
    check_mpi(MPI_Irecv(data, count, type, source, kAllToAllTag, comm, &next_request()),
              "MPI_Irecv");
  }
  void send(MPI_Comm comm, const void* data, int count, MPI_Datatype type, int target) {
    check_mpi(MPI_Isend(data, count, type, target, kAllToAllTag, comm, &next_request()),
              "MPI_Isend");
  }

  bool test() override {
    if (requests_.empty()) return true;
    int done = 0;
    statuses_.resize(requests_.size());
    const int code =
        MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses_.data());
    check_all(code, statuses_, "MPI_Testall");
    if (done == 0) return false;
    requests_.clear();
    check_lengths();
    return true;
  }

 private:
  struct Receive {
    int count;
    int source;
    MPI_Datatype type;
  };

  MPI_Request& next_request() { return requests_.emplace_back(MPI_REQUEST_NULL); }

  // MPI itself accepts a message that is shorter than its buffer.
  void check_lengths() const {
    for (std::size_t i = 0; i < receives_.size(); ++i) {
      int count = 0;
      check_mpi(MPI_Get_count(&statuses_[i], receives_[i].type, &count), "MPI_Get_count");
      if (count != receives_[i].count) {
        fail(ErrorKind::communication,
             "rank {} sent {} elements where {} were expected (the ranks disagree on the counts)",
             receives_[i].source, count, receives_[i].count);
      }
    }
  }

  std::vector<Receive> receives_;  // their requests come first
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
};

class MpiCollectives final : public Collectives {
 public:
  MpiCollectives(MPI_Comm comm, std::int64_t max_count) : comm_(comm), max_count_(max_count) {
    check_mpi(MPI_Comm_rank(comm, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(comm, &size_), "MPI_Comm_size");
  }

  Started start_barrier() override {
    return sequence({[comm = comm_](MPI_Request* request) {
      check_mpi(MPI_Ibarrier(comm, request), "MPI_Ibarrier");
    }});
  }

  Started start_broadcast(void* data, std::int64_t count, Dtype dtype, int root) override {
    std::vector<Sequence::Step> steps;
    if (size_ > 1) add_broadcasts(steps, data, count, dtype, root);
    return sequence(std::move(steps));
  }

  Started start_all_reduce(void* data, std::int64_t count, Dtype dtype, ReduceOp op) override {
    std::vector<Sequence::Step> steps;
    if (size_ == 1) return sequence({});
    for_pieces(count, [&](std::int64_t begin, int n) {
      steps.push_back([comm = comm_, at = offset(data, begin, dtype), n, type = mpi_type(dtype),
                       mpi_op = mpi_op(op, dtype)](MPI_Request* request) {
        check_mpi(MPI_Iallreduce(MPI_IN_PLACE, at, n, type, mpi_op, comm, request),
                  "MPI_Iallreduce");
      });
    });
    return sequence(std::move(steps));
  }

  Started start_all_gather(const void* mine, std::int64_t count, void* all, Dtype dtype) override {
    void* own = offset(all, rank_ * count, dtype);
    const bool in_place = mine == own;
    if (count == 0) return sequence({});
    if (count * size_ > max_count_ || size_ == 1) {
      if (!in_place) std::memcpy(own, mine, static_cast<std::size_t>(count) * size_of(dtype));
      std::vector<Sequence::Step> steps;
      for (int r = 0; r < size_ && size_ > 1; ++r) {
        add_broadcasts(steps, offset(all, r * count, dtype), count, dtype, r);
      }
      return sequence(std::move(steps));
    }
    return sequence({[=, comm = comm_, n = static_cast<int>(count),
                      type = mpi_type(dtype)](MPI_Request* request) {
      check_mpi(
          MPI_Iallgather(in_place ? MPI_IN_PLACE : mine, n, type, all, n, type, comm, request),
          "MPI_Iallgather");
    }});
  }

  Started start_reduce_scatter(const void* all, void* mine, std::int64_t count,
                               Dtype dtype) override {
    if (size_ == 1) {
      std::memcpy(mine, all, static_cast<std::size_t>(count) * size_of(dtype));
      return sequence({});
    }
    if (count == 0) return sequence({});
    if (count * size_ > max_count_) return reduce_scatter_in_pieces(all, mine, count, dtype);
    return sequence({[=, comm = comm_, n = static_cast<int>(count), type = mpi_type(dtype),
                      op = mpi_op(ReduceOp::sum, dtype)](MPI_Request* request) {
      check_mpi(MPI_Ireduce_scatter_block(all, mine, n, type, op, comm, request),
                "MPI_Ireduce_scatter_block");
    }});
  }

  Started start_all_to_all_v(const void* send, std::span<const std::int64_t> send_counts,
                             void* receive, std::span<const std::int64_t> receive_counts,
                             Dtype dtype) override {
    auto exchange = std::make_unique<Exchange>();
    const MPI_Datatype type = mpi_type(dtype);
    for_blocks(receive_counts, [&](int source, std::int64_t begin, int n) {
      exchange->receive(comm_, offset(receive, begin, dtype), n, type, source);
    });
    for_blocks(send_counts, [&](int target, std::int64_t begin, int n) {
      exchange->send(comm_, offset(send, begin, dtype), n, type, target);
    });
    copy_own_block(send, send_counts, receive, receive_counts, dtype);
    return exchange;
  }

 private:
  static Started sequence(std::vector<Sequence::Step> steps) {
    return std::make_unique<Sequence>(std::move(steps));
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
      if (r != rank_)
        for_pieces(count, [&](std::int64_t begin, int n) { visit(r, block + begin, n); });
      block += count;
    }
  }

  void copy_own_block(const void* send, std::span<const std::int64_t> send_counts, void* receive,
                      std::span<const std::int64_t> receive_counts, Dtype dtype) const {
    const auto own = static_cast<std::size_t>(rank_);
    TESSERA_EXPECT(send_counts[own] == receive_counts[own]);
    if (send_counts[own] == 0) return;
    std::int64_t send_begin = 0, receive_begin = 0;
    for (std::size_t r = 0; r < own; ++r) {
      send_begin += send_counts[r];
      receive_begin += receive_counts[r];
    }
    std::memcpy(offset(receive, receive_begin, dtype), offset(send, send_begin, dtype),
                static_cast<std::size_t>(send_counts[own]) * size_of(dtype));
  }

  void add_broadcasts(std::vector<Sequence::Step>& steps, void* data, std::int64_t count,
                      Dtype dtype, int root) const {
    for_pieces(count, [&](std::int64_t begin, int n) {
      steps.push_back([comm = comm_, at = offset(data, begin, dtype), n, type = mpi_type(dtype),
                       root](MPI_Request* request) {
        check_mpi(MPI_Ibcast(at, n, type, root, comm, request), "MPI_Ibcast");
      });
    });
  }

  Started reduce_scatter_in_pieces(const void* all, void* mine, std::int64_t count,
                                   Dtype dtype) const {
    std::vector<Sequence::Step> steps;
    for (int root = 0; root < size_; ++root) {
      for_pieces(count, [&](std::int64_t begin, int n) {
        steps.push_back([comm = comm_, from = offset(all, root * count + begin, dtype),
                         to = offset(mine, begin, dtype), n, type = mpi_type(dtype),
                         op = mpi_op(ReduceOp::sum, dtype), root](MPI_Request* request) {
          check_mpi(MPI_Ireduce(from, to, n, type, op, root, comm, request), "MPI_Ireduce");
        });
      });
    }
    return sequence(std::move(steps));
  }

  MPI_Comm comm_;
  std::int64_t max_count_;
  int rank_ = 0;
  int size_ = 1;
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

std::shared_ptr<Collectives> make_mpi_collectives(MPI_Comm communicator, std::int64_t max_count) {
  return std::make_shared<MpiCollectives>(communicator, max_count);
}

}  // namespace tessera::comm
