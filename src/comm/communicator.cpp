// SPDX-License-Identifier: Apache-2.0
#include "comm/communicator.hpp"

#include <cstdlib>
#include <exception>
#include <numeric>
#include <optional>
#include <utility>

#include "base/contract.hpp"
#include "base/device_access.hpp"
#include "base/polling.hpp"
#include "base/seconds_since.hpp"
#include "comm/checked.hpp"
#include "comm/communicator_call.hpp"
#include "comm/device_collectives.hpp"
#include "comm/wait.hpp"

namespace tessera::comm {

namespace {

constexpr int no_device = -1;  // the colour of a split in which device memory has no part

bool mpi_is_finalized() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  return finalized != 0;
}

bool checked_by_environment() {
  const char* text = std::getenv("TESSERA_CHECKED");
  return text != nullptr && std::string_view(text) == "1";
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

  void look() {
    complete = complete || operation->test();
    if (complete && seconds == 0.0) seconds = seconds_since(begin);
  }

  bool test() {
    guarded([&] {
      if (failure) std::rethrow_exception(failure);
      look();
    });
    return complete;
  }

  /// In the midst of a computation, which is no place for an error: the next test or wait has it,
  /// and until then the communicator passes for whole, so that this error is the one that is told.
  bool poll() noexcept {
    if (is_waited_for) return false;
    try {
      look();
      return !complete;
    } catch (const Error& error) {
      failure = std::make_exception_ptr(
          Error(error.kind(), fmt::format("{}: {}", describe(site), error.what())));
      return false;
    }
  }

  void wait() {
    if (stream && operation->hold(*stream)) {
      watch({describe(site), site.deadline, [started = operation] { return started->test(); }});
      return;
    }
    const auto wait_begin = std::chrono::steady_clock::now();
    is_waited_for = true;
    guarded([&] {
      if (failure) std::rethrow_exception(failure);
      if (!complete) wait_for(site, *operation);
    });
    traffic->in_flight_s += seconds > 0.0 ? seconds : seconds_since(begin);
    traffic->waited_s += complete ? 0.0 : seconds_since(wait_begin);
    uses.clear();
  }

  CallSite site;
  std::shared_ptr<Operation> operation;
  std::shared_ptr<Collectives> backend;
  std::shared_ptr<Traffic> traffic;
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  double seconds = 0.0;  // from begin to when a test found it complete
  std::optional<ComputeStream> stream;
  std::vector<DeviceAccess> uses;  // by MPI, which works on the buffers at any time until the end
  bool complete = false;
  bool is_waited_for = false;
  std::exception_ptr failure;  // of a poll
};

Communicator::Communicator(MPI_Comm parent, std::string name, CommunicatorOptions options) {
  MPI_Comm own = duplicate(parent, name, options.deadline);
  std::int32_t checked = options.checked || checked_by_environment() ? 1 : 0;
  set_up(own, std::move(name), {options.deadline, false, options.ranks_per_node, options.device});
  options_.checked = all_reduce_value("checked mode", checked, ReduceOp::max) != 0;
  *traffic_ = {};
  if (options_.checked) {
    checker_ =
        std::make_shared<CallChecker>(duplicate(mpi_, name_ + " (checks)", options_.deadline));
  }
  if (options.device) device_ = make_device_collectives(mpi_, name_, options_.deadline);
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
  std::swap(device_, other.device_);
  std::swap(checker_, other.checker_);
  std::swap(traffic_, other.traffic_);
  return *this;
}

// A communicator with operations still in flight is left to MPI.
Communicator::~Communicator() {
  if (mpi_ == MPI_COMM_NULL || std::uncaught_exceptions() > 0 || mpi_is_finalized()) return;
  device_.reset();
  if (!collectives_->broken()) MPI_Comm_free(&mpi_);
}

Request Communicator::start(const Call& call) const {
  const CallSite site{name_, call.operation, std::string(call.what),
                      rank_, size_,          options_.deadline};
  const std::shared_ptr<Collectives> backend =
      call.stream != nullptr && device_ ? device_ : collectives_;
  if (collectives_->broken() || backend->broken()) {
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
  std::vector<DeviceAccess> uses;
  std::shared_ptr<Operation> operation;
  try {
    if (call.stream != nullptr) backend->follow(*call.stream);
    if (call.stream != nullptr && backend == collectives_) {
      for (const auto& [data, size] : call.buffers) {
        uses.emplace_back(to_string(call.operation), data, size);
      }
    }
    operation = call.begin(*backend);
  } catch (const Error& error) {
    backend->mark_broken();
    throw Error(error.kind(), describe(site) + ": " + error.what());
  }
  note_collective_end();
  const auto flight = std::make_shared<Flight>(site, std::move(operation), backend, traffic_);
  if (call.stream != nullptr) flight->stream = *call.stream;
  flight->uses = std::move(uses);
  if (backend == collectives_) {
    poll_until_false([weak = std::weak_ptr(flight)] {
      const auto polled = weak.lock();
      return polled && polled->poll();
    });
  }
  return Request([flight] { flight->wait(); }, [flight] { return flight->test(); });
}

Communicator Communicator::made_by_split(const Call& call, int device_colour, std::string name,
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
  if (device_ && device_colour >= 0) {
    made.device_ = device_->split(made.mpi_, device_colour, made.name_);
  }
  return made;
}

Communicator Communicator::split(int colour, std::string name) const {
  TESSERA_EXPECT(colour >= 0);
  const std::string what = name;
  return made_by_split({.operation = OperationKind::split,
                        .what = what,
                        .begin = [](Collectives& c) { return c.start_barrier(); }},
                       colour, std::move(name),
                       [&](MPI_Comm* made) { return MPI_Comm_split(mpi_, colour, rank_, made); });
}

Communicator Communicator::split_node(std::string name) const {
  const std::string what = name;
  Communicator node = made_by_split({.operation = OperationKind::split_node,
                                     .what = what,
                                     .begin = [](Collectives& c) { return c.start_barrier(); }},
                                    no_device, what, [&](MPI_Comm* made) {
                                      return MPI_Comm_split_type(mpi_, MPI_COMM_TYPE_SHARED, rank_,
                                                                 MPI_INFO_NULL, made);
                                    });
  if (options_.ranks_per_node == 0) return node;
  const int world_rank = world_ranks_[static_cast<std::size_t>(rank_)];
  return node.split(world_rank / options_.ranks_per_node, std::move(name));
}

}  // namespace tessera::comm
