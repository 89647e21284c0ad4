// SPDX-License-Identifier: Apache-2.0
#include "comm/collectives_nccl.hpp"

#include <nccl.h>

#include <exception>
#include <mutex>

#include "base/contract.hpp"
#include "comm/cuda_stream.hpp"
#include "comm/wait.hpp"

namespace tessera::comm {
namespace {

using std::chrono::milliseconds;

// The watching thread asks for errors and aborts while the main thread works; NCCL wants its calls
// on a communicator one after the other.
std::mutex& nccl_mutex() {
  static std::mutex& instance = *new std::mutex;
  return instance;
}

template <class Call>
ncclResult_t locked(const Call& call) {
  const std::lock_guard lock(nccl_mutex());
  return call();
}

[[noreturn]] void fail_nccl(ncclResult_t code, const char* call, ncclComm_t comm) {
  const char* last = comm == nullptr ? nullptr : ncclGetLastError(comm);
  const bool has_more = last != nullptr && *last != '\0';
  fail(ErrorKind::communication, "{} failed: {}{}{}", call, ncclGetErrorString(code),
       has_more ? ": " : "", has_more ? last : "");
}

void check_nccl(ncclResult_t code, const char* call, ncclComm_t comm = nullptr) {
  if (code != ncclSuccess && code != ncclInProgress) fail_nccl(code, call, comm);
}

ncclDataType_t nccl_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::u8:
    case Dtype::f8_e4m3: return ncclUint8;
    case Dtype::i32: return ncclInt32;
    case Dtype::i64: return ncclInt64;
    case Dtype::u64: return ncclUint64;
    case Dtype::f16: return ncclFloat16;
    case Dtype::bf16: return ncclBfloat16;
    case Dtype::f32: return ncclFloat32;
    case Dtype::f64: return ncclFloat64;
  }
  return ncclUint8;
}

ncclRedOp_t nccl_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return ncclSum;
    case ReduceOp::max: return ncclMax;
    case ReduceOp::min: return ncclMin;
  }
  return ncclSum;
}

void* offset(void* data, std::int64_t elements, Dtype dtype) {
  return static_cast<std::byte*>(data) + elements * static_cast<std::int64_t>(size_of(dtype));
}
const void* offset(const void* data, std::int64_t elements, Dtype dtype) {
  return static_cast<const std::byte*>(data) + elements * static_cast<std::int64_t>(size_of(dtype));
}

// Complete when the communication stream has come past it.
class NcclOperation final : public Operation {
 public:
  explicit NcclOperation(cudaStream_t stream) { end_.record(stream); }
  bool test() override { return end_.has_come(); }
  bool hold(ComputeStream stream) override {
    end_.hold(cuda_stream(stream));
    return true;
  }

 private:
  CudaEvent end_;
};

ncclConfig_t non_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

class NcclCollectives final : public DeviceCollectives {
 public:
  // `comm` may still be in the making: make_ready() follows.
  NcclCollectives(ncclComm_t comm, MPI_Comm ranks, std::string name, milliseconds deadline)
      : comm_(comm), name_(std::move(name)), deadline_(deadline), live_(*this) {
    check_mpi(MPI_Comm_rank(ranks, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(ranks, &size_), "MPI_Comm_size");
  }

  // Destroying is local once all has been done; after an error or while an exception unwinds the
  // others may never come.
  ~NcclCollectives() override {
    if (comm_ == nullptr) return;
    try {
      if (!broken() && std::uncaught_exceptions() == 0) {
        check_nccl(locked([&] { return ncclCommFinalize(comm_); }), "ncclCommFinalize", comm_);
        settle(comm_, "finalize");
        locked([&] { return ncclCommDestroy(std::exchange(comm_, nullptr)); });
        return;
      }
    } catch (const Error&) {
    }
    abort();
  }

  static std::shared_ptr<NcclCollectives> make_parent(MPI_Comm ranks, const std::string& name,
                                                      milliseconds deadline) {
    ncclUniqueId id{};
    int rank = 0, size = 1;
    check_mpi(MPI_Comm_rank(ranks, &rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(ranks, &size), "MPI_Comm_size");
    if (rank == 0) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    wait_for({name, OperationKind::broadcast, "NCCL's identity", rank, size, deadline},
             *make_mpi_collectives(ranks)->start_broadcast(&id, sizeof id, Dtype::u8, 0));
    ncclComm_t comm = nullptr;
    ncclConfig_t config = non_blocking();
    check_nccl(locked([&] { return ncclCommInitRankConfig(&comm, size, id, rank, &config); }),
               "ncclCommInitRankConfig");
    auto made = std::make_shared<NcclCollectives>(comm, ranks, name, deadline);
    made->settle(comm, "start NCCL");
    return made;
  }

  std::shared_ptr<DeviceCollectives> split(MPI_Comm part, int colour,
                                           const std::string& name) override {
    ncclComm_t comm = nullptr;
    ncclConfig_t config = non_blocking();
    check_nccl(locked([&] { return ncclCommSplit(comm_, colour, rank_, &comm, &config); }),
               "ncclCommSplit", comm_);
    settle(comm_, "split NCCL's communicator");
    auto made = std::make_shared<NcclCollectives>(comm, part, name, deadline_);
    made->settle(comm, "start NCCL");
    return made;
  }

  void check() override {
    const std::lock_guard lock(nccl_mutex());
    ncclResult_t state = ncclSuccess;
    if (comm_ == nullptr || broken()) return;  // it has been said
    const ncclResult_t code = ncclCommGetAsyncError(comm_, &state);
    if (code == ncclSuccess && (state == ncclSuccess || state == ncclInProgress)) return;
    mark_broken();
    fail_nccl(code == ncclSuccess ? state : code, fmt::format("NCCL on {}", name_).c_str(), comm_);
  }

  void abort() noexcept override {
    mark_broken();
    locked([&] {
      return comm_ == nullptr ? ncclSuccess : ncclCommAbort(std::exchange(comm_, nullptr));
    });
  }

  std::string state() override {
    const std::lock_guard lock(nccl_mutex());
    const char* text = comm_ == nullptr ? nullptr : ncclGetLastError(comm_);
    return text == nullptr || *text == '\0' ? "" : fmt::format("NCCL on {}: {}", name_, text);
  }

  void follow(ComputeStream compute) override { stream_.follow(compute); }

  Started start_barrier() override {
    if (!token_) token_ = std::make_unique<DeviceToken>();
    return start_all_reduce(token_->data(), 1, Dtype::i32, ReduceOp::sum);
  }

  Started start_broadcast(void* data, std::int64_t count, Dtype dtype, int root) override {
    enqueue("ncclBroadcast", [&] {
      return ncclBroadcast(data, data, elements(count), nccl_type(dtype), root, comm_, stream());
    });
    return started();
  }

  Started start_all_reduce(void* data, std::int64_t count, Dtype dtype, ReduceOp op) override {
    enqueue("ncclAllReduce", [&] {
      return ncclAllReduce(data, data, elements(count), nccl_type(dtype), nccl_op(op), comm_,
                           stream());
    });
    return started();
  }

  // NCCL knows no distance between blocks: there, each rank's block is a broadcast of its own.
  Started start_all_gather(const void* mine, std::int64_t count, void* all, std::int64_t stride,
                           Dtype dtype) override {
    if (stride == count) {
      enqueue("ncclAllGather", [&] {
        return ncclAllGather(mine, all, elements(count), nccl_type(dtype), comm_, stream());
      });
      return started();
    }
    grouped("all-gather with distances", [&] {
      for (int r = 0; r < size_; ++r) {
        void* block = offset(all, r * stride, dtype);
        within("ncclBroadcast", ncclBroadcast(r == rank_ ? mine : block, block, elements(count),
                                              nccl_type(dtype), r, comm_, stream()));
      }
    });
    return started();
  }

  Started start_reduce_scatter(const void* all, void* mine, std::int64_t count,
                               Dtype dtype) override {
    enqueue("ncclReduceScatter", [&] {
      return ncclReduceScatter(all, mine, elements(count), nccl_type(dtype), ncclSum, comm_,
                               stream());
    });
    return started();
  }

  Started start_all_to_all_v(const void* send, std::span<const std::int64_t> send_counts,
                             void* receive, std::span<const std::int64_t> receive_counts,
                             Dtype dtype) override {
    grouped("all-to-all", [&] {
      std::int64_t send_begin = 0, receive_begin = 0;
      for (int r = 0; r < size_; ++r) {
        const std::int64_t sent = send_counts[static_cast<std::size_t>(r)];
        const std::int64_t received = receive_counts[static_cast<std::size_t>(r)];
        const void* from = offset(send, send_begin, dtype);
        void* to = offset(receive, receive_begin, dtype);
        send_begin += sent;
        receive_begin += received;
        if (r == rank_) {
          TESSERA_EXPECT(sent == received);
          copy(from, to, sent, dtype);
          continue;
        }
        if (sent > 0) {
          within("ncclSend", ncclSend(from, elements(sent), nccl_type(dtype), r, comm_, stream()));
        }
        if (received > 0) {
          within("ncclRecv",
                 ncclRecv(to, elements(received), nccl_type(dtype), r, comm_, stream()));
        }
      }
    });
    return started();
  }

 private:
  // What a barrier adds up.
  class DeviceToken {
   public:
    DeviceToken() { check_nccl(ncclMemAlloc(&data_, sizeof(std::int32_t)), "ncclMemAlloc"); }
    DeviceToken(const DeviceToken&) = delete;
    DeviceToken& operator=(const DeviceToken&) = delete;
    ~DeviceToken() { ncclMemFree(data_); }
    void* data() const { return data_; }

   private:
    void* data_ = nullptr;
  };

  static std::size_t elements(std::int64_t count) { return static_cast<std::size_t>(count); }
  cudaStream_t stream() const { return stream_.get(); }
  Started started() const { return std::make_unique<NcclOperation>(stream()); }

  ncclResult_t state_of(ncclComm_t comm) const {
    ncclResult_t state = ncclSuccess;
    const ncclResult_t code = locked([&] { return ncclCommGetAsyncError(comm, &state); });
    return code == ncclSuccess ? state : code;
  }

  // A call on a non-blocking communicator may go on in the background: no other may follow before
  // its end. Past the deadline the communicator is given up.
  void settle(ncclComm_t comm, const char* what) {
    wait_until({name_, OperationKind::split, what, rank_, size_, deadline_}, [&] {
      const ncclResult_t state = state_of(comm);
      check_nccl(state, what, comm);
      return state == ncclSuccess;
    });
  }

  template <class Call>
  void enqueue(const char* name, const Call& call) {
    const ncclResult_t code = locked(call);
    check_nccl(code, name, comm_);
    if (code == ncclInProgress) settle(comm_, name);
  }

  // Inside a group calls are only noted; the lock is that of the group.
  void within(const char* name, ncclResult_t code) const { check_nccl(code, name, comm_); }

  template <class Body>
  void grouped(const char* name, const Body& body) {
    enqueue(name, [&] {
      check_nccl(ncclGroupStart(), "ncclGroupStart");
      try {
        body();
      } catch (...) {
        ncclGroupEnd();
        throw;
      }
      return ncclGroupEnd();
    });
  }

  void copy(const void* from, void* to, std::int64_t count, Dtype dtype) const {
    if (count == 0) return;
    check_cuda(cudaMemcpyAsync(to, from, elements(count) * size_of(dtype), cudaMemcpyDeviceToDevice,
                               stream()),
               "cudaMemcpyAsync");
  }

  ncclComm_t comm_;
  std::string name_;
  milliseconds deadline_;
  int rank_ = 0;
  int size_ = 1;
  CudaStream stream_;
  std::unique_ptr<DeviceToken> token_;
  LiveDeviceCollectives live_;
};

int running_version() {
  int version = 0;
  check_nccl(ncclGetVersion(&version), "ncclGetVersion");
  return version;
}

std::string text_of(int version) {
  return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

/// Programs run with a library that is newer than the one they were built with, not with an older.
std::string misfit() {
  if (running_version() >= NCCL_VERSION_CODE) return {};
  return fmt::format(
      "{} runs, and Tessera was built with {} (the older may lack what is called); "
      "put the newer one first in LD_LIBRARY_PATH, or build again",
      text_of(running_version()), text_of(NCCL_VERSION_CODE));
}

}  // namespace

DeviceCollectivesFactory nccl_factory() {
  return {NcclCollectives::make_parent, [] { return text_of(running_version()); }, misfit};
}

}  // namespace tessera::comm
