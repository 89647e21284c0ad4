// SPDX-License-Identifier: Apache-2.0
#include "comm/collectives_staged.hpp"

#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include <deque>
#include <map>
#include <vector>

#include "comm/cuda_stream.hpp"

namespace tessera::comm {
namespace {

using std::chrono::milliseconds;

// Pinned host memory that is used again: to pin takes longer than to copy.
class PinnedBuffers {
 public:
  struct Loan {
    std::size_t bytes = 0;
    void* data = nullptr;
  };
  PinnedBuffers() = default;
  PinnedBuffers(const PinnedBuffers&) = delete;
  PinnedBuffers& operator=(const PinnedBuffers&) = delete;
  ~PinnedBuffers() {
    for (const auto& [bytes, data] : free_) cudaFreeHost(data);
  }

  Loan borrow(std::size_t bytes) {
    const auto found = free_.lower_bound(bytes);
    if (found != free_.end()) {
      const Loan loan{found->first, found->second};
      free_.erase(found);
      return loan;
    }
    Loan loan{bytes, nullptr};
    if (bytes > 0) check_cuda(cudaMallocHost(&loan.data, bytes), "cudaMallocHost");
    return loan;
  }
  void give_back(const Loan& loan) {
    if (loan.data != nullptr) free_.emplace(loan.bytes, loan.data);
  }

 private:
  std::multimap<std::size_t, void*> free_;
};

struct Block {
  void* device = nullptr;
  std::size_t offset = 0;  // in the host buffer
  std::size_t bytes = 0;
};

// What an operation needs on the host, and what it does there.
struct Plan {
  std::size_t host_bytes = 0;
  std::vector<Block> in{}, out{};  // copied before and after
  std::function<Collectives::Started(Collectives&, std::byte* host)> begin{};
};

class StagedOperation final : public Operation {
 public:
  StagedOperation(Plan plan, Collectives& mpi, CudaStream& stream, PinnedBuffers& buffers)
      : plan_(std::move(plan)), mpi_(mpi), stream_(stream), buffers_(buffers) {
    loan_ = buffers_.borrow(plan_.host_bytes);
    for (const Block& block : plan_.in) copy(host() + block.offset, block.device, block.bytes);
    ready_.record(stream_.get());
  }
  ~StagedOperation() override { buffers_.give_back(loan_); }

  bool test() override { return stage_ == Stage::returning && end_.has_come(); }

  /// Operations start in one order on all ranks: false until this one has.
  bool start() {
    if (stage_ != Stage::leaving) return true;
    if (!ready_.has_come()) return false;
    under_way_ = plan_.begin(mpi_, host());
    stage_ = Stage::under_way;
    return true;
  }
  void move_on() {
    if (stage_ != Stage::under_way || !under_way_->test()) return;
    for (const Block& block : plan_.out) copy(block.device, host() + block.offset, block.bytes);
    end_.record(stream_.get());
    stage_ = Stage::returning;
  }

 private:
  enum class Stage { leaving, under_way, returning };

  std::byte* host() const { return static_cast<std::byte*>(loan_.data); }
  void copy(void* to, const void* from, std::size_t bytes) const {
    if (bytes == 0) return;
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_.get()),
               "cudaMemcpyAsync");
  }

  Plan plan_;
  Collectives& mpi_;
  CudaStream& stream_;
  PinnedBuffers& buffers_;
  PinnedBuffers::Loan loan_;
  CudaEvent ready_, end_;
  Stage stage_ = Stage::leaving;
  Collectives::Started under_way_;
};

class StagedCollectives final : public DeviceCollectives {
 public:
  StagedCollectives(MPI_Comm ranks, bool direct) : direct_(direct) {
    check_mpi(MPI_Comm_dup(ranks, &comm_), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    mpi_ = make_mpi_collectives(comm_);
    on_device_ = make_mpi_collectives(
        comm_, std::numeric_limits<int>::max(),
        [this](const void* from, void* to, std::size_t bytes) {
          check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_.get()),
                     "cudaMemcpyAsync");
        });
  }
  ~StagedCollectives() override {
    if (!broken() && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
  }

  std::shared_ptr<DeviceCollectives> split(MPI_Comm part, int, const std::string&) override {
    return std::make_shared<StagedCollectives>(part, direct_);
  }
  void check() override {}
  void abort() noexcept override { mark_broken(); }
  void follow(ComputeStream compute) override { stream_.follow(compute); }

  Started start_barrier() override {
    return add({.begin = [](Collectives& mpi, std::byte*) { return mpi.start_barrier(); }});
  }

  Started start_broadcast(void* data, std::int64_t count, Dtype dtype, int root) override {
    if (direct_) {
      return add_direct(
          [=](Collectives& c) { return c.start_broadcast(data, count, dtype, root); });
    }
    const std::size_t size = bytes(count, dtype);
    Plan plan{size, {}, {{data, 0, size}}, [=](Collectives& mpi, std::byte* host) {
                return mpi.start_broadcast(host, count, dtype, root);
              }};
    if (rank_ == root) std::swap(plan.in, plan.out);
    return add(std::move(plan));
  }

  Started start_all_reduce(void* data, std::int64_t count, Dtype dtype, ReduceOp op) override {
    const Block block{data, 0, bytes(count, dtype)};
    return add({block.bytes, {block}, {block}, [=](Collectives& mpi, std::byte* host) {
                  return mpi.start_all_reduce(host, count, dtype, op);
                }});
  }

  Started start_all_gather(const void* mine, std::int64_t count, void* all, std::int64_t stride,
                           Dtype dtype) override {
    if (direct_) {
      return add_direct(
          [=](Collectives& c) { return c.start_all_gather(mine, count, all, stride, dtype); });
    }
    const std::size_t size = bytes(count, dtype);
    Plan plan{size * static_cast<std::size_t>(size_), {}, {}, {}};
    for (int r = 0; r < size_; ++r) {
      plan.out.push_back(
          {at(all, bytes(r * stride, dtype)), size * static_cast<std::size_t>(r), size});
    }
    const std::size_t own = size * static_cast<std::size_t>(rank_);
    plan.in = {{const_cast<void*>(mine), own, size}};
    plan.begin = [=](Collectives& mpi, std::byte* host) {
      return mpi.start_all_gather(host + own, count, host, count, dtype);
    };
    return add(std::move(plan));
  }

  Started start_reduce_scatter(const void* all, void* mine, std::int64_t count,
                               Dtype dtype) override {
    const std::size_t size = bytes(count, dtype), whole = size * static_cast<std::size_t>(size_);
    return add({whole + size,
                {{const_cast<void*>(all), 0, whole}},
                {{mine, whole, size}},
                [=](Collectives& mpi, std::byte* host) {
                  return mpi.start_reduce_scatter(host, host + whole, count, dtype);
                }});
  }

  Started start_all_to_all_v(const void* send, std::span<const std::int64_t> send_counts,
                             void* receive, std::span<const std::int64_t> receive_counts,
                             Dtype dtype) override {
    const std::vector<std::int64_t> sent(send_counts.begin(), send_counts.end());
    const std::vector<std::int64_t> received(receive_counts.begin(), receive_counts.end());
    if (direct_) {
      return add_direct([=](Collectives& c) {
        return c.start_all_to_all_v(send, sent, receive, received, dtype);
      });
    }
    const std::size_t out = sum_bytes(sent, dtype), in = sum_bytes(received, dtype);
    return add({out + in,
                {{const_cast<void*>(send), 0, out}},
                {{receive, out, in}},
                [=](Collectives& mpi, std::byte* host) {
                  return mpi.start_all_to_all_v(host, sent, host + out, received, dtype);
                }});
  }

 private:
  // Whoever waits for one operation moves all on.
  class Queued final : public Operation {
   public:
    Queued(StagedCollectives& owner, std::shared_ptr<StagedOperation> operation)
        : owner_(owner), operation_(std::move(operation)) {}
    bool test() override {
      owner_.move_on();
      return operation_->test();
    }

   private:
    StagedCollectives& owner_;
    std::shared_ptr<StagedOperation> operation_;
  };

  static std::size_t bytes(std::int64_t count, Dtype dtype) {
    return static_cast<std::size_t>(count) * size_of(dtype);
  }
  static std::size_t sum_bytes(const std::vector<std::int64_t>& counts, Dtype dtype) {
    std::size_t sum = 0;
    for (const std::int64_t count : counts) sum += bytes(count, dtype);
    return sum;
  }
  static void* at(void* data, std::size_t bytes) { return static_cast<std::byte*>(data) + bytes; }

  Started add(Plan plan) {
    queue_.push_back(std::make_shared<StagedOperation>(std::move(plan), *mpi_, stream_, buffers_));
    return std::make_unique<Queued>(*this, queue_.back());
  }
  template <class Begin>
  Started add_direct(const Begin& begin) {
    return add({.begin = [this, begin](Collectives&, std::byte*) { return begin(*on_device_); }});
  }

  void move_on() {
    bool may_start = true;
    for (const auto& each : queue_) {
      may_start = may_start && each->start();
      each->move_on();
    }
    while (!queue_.empty() && queue_.front()->test()) queue_.pop_front();
  }

  bool direct_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  CudaStream stream_;
  std::shared_ptr<Collectives> mpi_, on_device_;
  PinnedBuffers buffers_;
  std::deque<std::shared_ptr<StagedOperation>> queue_;
};

DeviceCollectivesFactory factory(bool direct, const char* description) {
  return {[direct](MPI_Comm ranks, const std::string&, milliseconds) {
            return std::make_shared<StagedCollectives>(ranks, direct);
          },
          [description] { return std::string(description); }};
}

}  // namespace

DeviceCollectivesFactory staged_factory() {
  return factory(false, "MPI through pinned host memory");
}
DeviceCollectivesFactory direct_factory() { return factory(true, "MPI with device addresses"); }

bool mpi_takes_device_memory() {
#if defined(MPIX_CUDA_AWARE_SUPPORT) && MPIX_CUDA_AWARE_SUPPORT
  return MPIX_Query_cuda_support() == 1;
#else
  return false;
#endif
}

}  // namespace tessera::comm
