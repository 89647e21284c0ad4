// SPDX-License-Identifier: Apache-2.0
#include "comm/communicator.hpp"

#include <cstdlib>
#include <exception>
#include <numeric>
#include <utility>

#include "base/contract.hpp"
#include "comm/checked.hpp"
#include "comm/collectives.hpp"
#include "comm/wait.hpp"

namespace tessera::comm {

// What start() needs to know of one collective call.
struct Communicator::Call {
  OperationKind operation;
  std::string_view what;
  Dtype dtype = Dtype::u8;
  std::int64_t count = 0;   // per rank; -1: may differ between ranks
  std::int32_t detail = 0;  // root or reduction: must agree, too
  std::function<Collectives::Started(Collectives&)> begin;
};

namespace {

std::int64_t sum(std::span<const std::int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

std::int64_t bytes(std::int64_t count, Dtype dtype) {
  return count * static_cast<std::int64_t>(size_of(dtype));
}

bool mpi_is_finalized() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  return finalized != 0;
}

bool checked_by_environment() {
  const char* text = std::getenv("TESSERA_CHECKED");
  return text != nullptr && std::string_view(text) == "1";
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Blocking MPI calls that make communicators are covered by the watchdog: they cannot be tested.
MPI_Comm duplicate(MPI_Comm comm, const std::string& name, std::chrono::milliseconds deadline) {
  const Phase phase("duplicate communicator " + name, deadline);
  MPI_Comm made = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(comm, &made), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(made, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return made;
}

}  // namespace

int default_ranks_per_node() {
  const char* text = std::getenv("TESSERA_RANKS_PER_NODE");
  if (text == nullptr || *text == '\0') return 0;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (*end != '\0' || value < 1 || value > 1000000) {
    fail(ErrorKind::usage,
         "TESSERA_RANKS_PER_NODE is '{}' (it is how many ranks count as one node); give a number "
         "from 1 on, or leave it unset",
         text);
  }
  return static_cast<int>(value);
}

// An operation between start and wait.
struct Communicator::Flight {
  Flight(CallSite call, std::shared_ptr<Operation> started, std::shared_ptr<Collectives> by,
         std::shared_ptr<Traffic> counted)
      : site(std::move(call)),
        operation(std::move(started)),
        backend(std::move(by)),
        traffic(std::move(counted)) {}

  template <class Body>
  void guarded(const Body& body) {
    try {
      body();
    } catch (...) {
      backend->mark_broken();
      throw;
    }
  }

  bool test() {
    guarded([&] { complete = complete || operation->test(); });
    if (complete && seconds == 0.0) seconds = seconds_since(begin);
    return complete;
  }

  void wait() {
    const auto wait_begin = std::chrono::steady_clock::now();
    if (!complete) guarded([&] { wait_for(site, *operation); });
    traffic->in_flight_s += seconds > 0.0 ? seconds : seconds_since(begin);
    traffic->waited_s += complete ? 0.0 : seconds_since(wait_begin);
  }

  CallSite site;
  std::shared_ptr<Operation> operation;
  std::shared_ptr<Collectives> backend;
  std::shared_ptr<Traffic> traffic;
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  double seconds = 0.0;  // from begin to when a test found it complete
  bool complete = false;
};

Communicator::Communicator(MPI_Comm parent, std::string name, CommunicatorOptions options) {
  MPI_Comm own = duplicate(parent, name, options.deadline);
  std::int32_t checked = options.checked || checked_by_environment() ? 1 : 0;
  set_up(own, std::move(name), {options.deadline, false, options.ranks_per_node});
  options_.checked = all_reduce_value("checked mode", checked, ReduceOp::max) != 0;
  *traffic_ = {};
  if (options_.checked) {
    checker_ =
        std::make_shared<CallChecker>(duplicate(mpi_, name_ + " (checks)", options_.deadline));
  }
}

Communicator Communicator::adopt(MPI_Comm own, std::string name, CommunicatorOptions options) {
  Communicator made;
  check_mpi(MPI_Comm_set_errhandler(own, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  made.set_up(own, std::move(name), options);
  if (options.checked) {
    made.checker_ =
        std::make_shared<CallChecker>(duplicate(own, made.name_ + " (checks)", options.deadline));
  }
  return made;
}

void Communicator::set_up(MPI_Comm own, std::string name, CommunicatorOptions options) {
  mpi_ = own;
  check_mpi(MPI_Comm_rank(own, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(own, &size_), "MPI_Comm_size");
  name_ = std::move(name);
  options_ = options;
  world_ranks_.resize(static_cast<std::size_t>(size_));
  std::iota(world_ranks_.begin(), world_ranks_.end(), 0);
  collectives_ = make_mpi_collectives(own);
  traffic_ = std::make_shared<Traffic>();
}

Communicator::Communicator(Communicator&& other) noexcept { *this = std::move(other); }

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  std::swap(mpi_, other.mpi_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  std::swap(name_, other.name_);
  std::swap(options_, other.options_);
  std::swap(world_ranks_, other.world_ranks_);
  std::swap(collectives_, other.collectives_);
  std::swap(checker_, other.checker_);
  std::swap(traffic_, other.traffic_);
  return *this;
}

// A communicator with operations still in flight is left to MPI.
Communicator::~Communicator() {
  if (mpi_ == MPI_COMM_NULL || std::uncaught_exceptions() > 0 || mpi_is_finalized()) return;
  if (!collectives_->broken()) MPI_Comm_free(&mpi_);
}

Request Communicator::start(const Call& call) const {
  const CallSite site{name_, call.operation, std::string(call.what),
                      rank_, size_,          options_.deadline};
  if (collectives_->broken()) {
    fail(ErrorKind::communication,
         "{}: an earlier collective on this communicator failed (its ranks are "
         "out of step)",
         describe(site));
  }
  note_collective_begin(name_, to_string(call.operation), call.what);
  if (checker_ && size_ > 1) {
    try {
      checker_->check(site, {call.operation, call.dtype, call.count, call.detail});
    } catch (const Error&) {
      if (checker_->broken()) collectives_->mark_broken();
      throw;
    }
  }
  std::shared_ptr<Operation> operation;
  try {
    operation = call.begin(*collectives_);
  } catch (const Error& error) {
    collectives_->mark_broken();
    throw Error(error.kind(), describe(site) + ": " + error.what());
  }
  note_collective_end();
  const auto flight = std::make_shared<Flight>(site, std::move(operation), collectives_, traffic_);
  return Request([flight] { flight->wait(); }, [flight] { return flight->test(); });
}

Communicator Communicator::made_by_split(const Call& call, std::string name,
                                         const std::function<int(MPI_Comm*)>& make) const {
  start(call).wait();
  MPI_Comm own = MPI_COMM_NULL;
  {
    const Phase phase("split " + name_ + " into " + name, options_.deadline);
    check_mpi(make(&own), to_string(call.operation));
  }
  Communicator made = adopt(own, std::move(name), options_);
  MPI_Group part = MPI_GROUP_NULL, whole = MPI_GROUP_NULL;
  check_mpi(MPI_Comm_group(own, &part), "MPI_Comm_group");
  check_mpi(MPI_Comm_group(mpi_, &whole), "MPI_Comm_group");
  std::vector<int> ranks(made.world_ranks_.size());
  check_mpi(
      MPI_Group_translate_ranks(part, made.size_, made.world_ranks_.data(), whole, ranks.data()),
      "MPI_Group_translate_ranks");
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    made.world_ranks_[r] = world_ranks_[static_cast<std::size_t>(ranks[r])];
  }
  MPI_Group_free(&part);
  MPI_Group_free(&whole);
  return made;
}

Communicator Communicator::split(int colour, std::string name) const {
  TESSERA_EXPECT(colour >= 0);
  const std::string what = name;
  return made_by_split({.operation = OperationKind::split,
                        .what = what,
                        .begin = [](Collectives& c) { return c.start_barrier(); }},
                       std::move(name),
                       [&](MPI_Comm* made) { return MPI_Comm_split(mpi_, colour, rank_, made); });
}

Communicator Communicator::split_node(std::string name) const {
  const std::string what = name;
  Communicator node = made_by_split({.operation = OperationKind::split_node,
                                     .what = what,
                                     .begin = [](Collectives& c) { return c.start_barrier(); }},
                                    what, [&](MPI_Comm* made) {
                                      return MPI_Comm_split_type(mpi_, MPI_COMM_TYPE_SHARED, rank_,
                                                                 MPI_INFO_NULL, made);
                                    });
  if (options_.ranks_per_node == 0) return node;
  const int world_rank = world_ranks_[static_cast<std::size_t>(rank_)];
  return node.split(world_rank / options_.ranks_per_node, std::move(name));
}

Request Communicator::start_barrier(std::string_view what) const {
  return start({.operation = OperationKind::barrier, .what = what, .begin = [](Collectives& c) {
                  return c.start_barrier();
                }});
}

std::string Communicator::broadcast_string(std::string_view what, std::string text,
                                           int root) const {
  std::int64_t length = as_count(text.size());
  broadcast(what, std::span<std::int64_t>(&length, 1), root);
  text.resize(static_cast<std::size_t>(length));
  broadcast(what, std::span<char>(text), root);
  return text;
}

void Communicator::expect_blocks(std::size_t block, std::size_t all) const {
  TESSERA_EXPECT(all == block * static_cast<std::size_t>(size_));
}

void Communicator::broadcast_raw(std::string_view what, void* data, std::int64_t count, Dtype dtype,
                                 int root) const {
  TESSERA_EXPECT(root >= 0 && root < size_);
  start({OperationKind::broadcast, what, dtype, count, root,
         [=](Collectives& c) { return c.start_broadcast(data, count, dtype, root); }})
      .wait();
}

void Communicator::all_reduce_raw(std::string_view what, void* data, std::int64_t count,
                                  Dtype dtype, ReduceOp op) const {
  const std::int64_t received = 2 * (size_ - 1) * bytes(count, dtype) / size_;
  count_volume(&Traffic::all_reduce, {received, received});
  start({OperationKind::all_reduce, what, dtype, count, static_cast<std::int32_t>(op),
         [=](Collectives& c) { return c.start_all_reduce(data, count, dtype, op); }})
      .wait();
}

Request Communicator::start_all_gather_raw(std::string_view what, const void* mine,
                                           std::int64_t count, void* all, std::int64_t stride,
                                           Dtype dtype) const {
  TESSERA_EXPECT(stride >= count);
  const std::int64_t received = (size_ - 1) * bytes(count, dtype);
  count_volume(&Traffic::all_gather, {received, received});
  return start({OperationKind::all_gather, what, dtype, count, 0, [=](Collectives& c) {
                  return c.start_all_gather(mine, count, all, stride, dtype);
                }});
}

Request Communicator::start_reduce_scatter_raw(std::string_view what, const void* all,
                                               std::int64_t all_count, void* mine,
                                               std::int64_t count, Dtype dtype) const {
  TESSERA_EXPECT(all_count == count * size_);
  const std::int64_t received = (size_ - 1) * bytes(count, dtype);
  count_volume(&Traffic::reduce_scatter, {received, received});
  return start({OperationKind::reduce_scatter, what, dtype, count, 0,
                [=](Collectives& c) { return c.start_reduce_scatter(all, mine, count, dtype); }});
}

void Communicator::all_to_all_raw(std::string_view what, const void* send, std::int64_t send_count,
                                  void* receive, std::int64_t receive_count, Dtype dtype) const {
  TESSERA_EXPECT(send_count == receive_count && send_count % size_ == 0);
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(size_), send_count / size_);
  const std::int64_t received = bytes(receive_count - counts[0], dtype);
  count_volume(&Traffic::all_to_all, {received, received});
  start(
      {OperationKind::all_to_all, what, dtype, send_count, 0,
       [&](Collectives& c) { return c.start_all_to_all_v(send, counts, receive, counts, dtype); }})
      .wait();
}

Request Communicator::start_all_to_all_v_raw(std::string_view what, const void* send,
                                             std::span<const std::int64_t> send_counts,
                                             void* receive,
                                             std::span<const std::int64_t> receive_counts,
                                             Dtype dtype) const {
  TESSERA_EXPECT(as_count(send_counts.size()) == size_ && as_count(receive_counts.size()) == size_);
  const std::int64_t own = receive_counts[static_cast<std::size_t>(rank_)];
  const std::int64_t received = bytes(sum(receive_counts) - own, dtype);
  count_volume(&Traffic::all_to_all, {received, received});
  return start({OperationKind::all_to_all_v, what, dtype, -1, 0, [&](Collectives& c) {
                  return c.start_all_to_all_v(send, send_counts, receive, receive_counts, dtype);
                }});
}

}  // namespace tessera::comm
