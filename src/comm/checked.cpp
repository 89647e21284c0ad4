// SPDX-License-Identifier: Apache-2.0
#include "comm/checked.hpp"

#include <fmt/ranges.h>

#include <cstring>
#include <exception>

#include "base/log.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {

struct CallChecker::Record {
  std::int64_t sequence;
  std::int64_t count;
  OperationKind operation;
  Dtype dtype;
  std::int32_t detail;
  char what[64];

  bool matches(const Record& other) const {
    return sequence == other.sequence && count == other.count && operation == other.operation &&
           dtype == other.dtype && detail == other.detail &&
           std::strncmp(what, other.what, sizeof what) == 0;
  }
};

namespace {

constexpr int kRecordTag = 1;
constexpr int kVerdictTag = 2;
constexpr std::size_t kMaxVerdict = 2048;  // one eager message: rank 0 never waits for a receiver

// First byte of a message from rank 0.
constexpr char kGo = 'g';        // all calls match
constexpr char kWait = 'w';      // rank 0 is here and waits for others: begin the deadline anew
constexpr char kMismatch = 'm';  // text follows
constexpr char kMissing = 'a';   // text follows

constexpr std::chrono::milliseconds kBeforeNotice{200};
constexpr std::chrono::milliseconds kForDelivery{1000};

bool test(MPI_Request& request) {
  int done = 0;
  check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
  return done != 0;
}

void cancel(MPI_Request& receive) {
  MPI_Cancel(&receive);
  MPI_Wait(&receive, MPI_STATUS_IGNORE);
}

}  // namespace

CallChecker::CallChecker(MPI_Comm own) : comm_(own) {}

CallChecker::~CallChecker() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0 && !broken_ && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
}

void CallChecker::check(const CallSite& site, const CallFingerprint& call) {
  Record record{};
  record.sequence = sequence_++;
  record.count = call.count;
  record.operation = call.operation;
  record.dtype = call.dtype;
  record.detail = call.detail;
  site.what.copy(record.what, sizeof record.what - 1);
  if (site.rank == 0) {
    judge(site, record);
  } else {
    report(site, record);
  }
}

namespace {

template <class Record>
std::string describe_record(int rank, const Record& record) {
  std::string text =
      fmt::format("rank {}: {} '{}'", rank, to_string(record.operation), record.what);
  const bool has_data = record.operation != OperationKind::barrier &&
                        record.operation != OperationKind::split &&
                        record.operation != OperationKind::split_node;
  if (has_data && record.count >= 0)
    text += fmt::format(" {} x {}", record.count, to_string(record.dtype));
  if (has_data && record.count < 0) text += fmt::format(" of {}", to_string(record.dtype));
  if (record.operation == OperationKind::broadcast) text += fmt::format(" from {}", record.detail);
  if (record.operation == OperationKind::all_reduce) {
    text += fmt::format(" {}", to_string(static_cast<ReduceOp>(record.detail)));
  }
  return text;
}

}  // namespace

// Rank 0: waits for all records, then tells every rank what came out, those that are missing
// included (they read it when they come).
void CallChecker::judge(const CallSite& site, const Record& own) {
  std::vector<Record> records(static_cast<std::size_t>(site.size), own);
  const std::vector<int> missing = missing_ranks(site, records);
  if (!missing.empty()) {
    broken_ = true;
    const std::string text = fmt::format(
        "{} on {}: rank{} {} did not come within {:.1f} s (failed, far behind or gone another "
        "way); {} is "
        "where the others wait",
        to_string(site.operation), site.communicator, missing.size() == 1 ? "" : "s",
        fmt::join(missing, ", "), static_cast<double>(site.deadline.count()) * 1e-3,
        describe_record(0, own));
    log_rank(LogLevel::error, "deadline passed: {}", where_am_i());
    send_verdict(kMissing, text);
    throw Error(ErrorKind::communication, text);
  }
  for (int r = 1; r < site.size; ++r) {
    const Record& other = records[static_cast<std::size_t>(r)];
    if (own.matches(other)) continue;
    const std::string text = fmt::format(
        "the ranks of {} are about to do different things (they would hang or mix their "
        "data): {}; {}",
        site.communicator, describe_record(0, own), describe_record(r, other));
    send_verdict(kMismatch, text);
    throw Error(ErrorKind::communication, text);
  }
  send_verdict(kGo, "");
}

std::vector<int> CallChecker::missing_ranks(const CallSite& site, std::vector<Record>& records) {
  std::vector<MPI_Request> receives(records.size(), MPI_REQUEST_NULL);
  for (std::size_t r = 1; r < records.size(); ++r) {
    check_mpi(MPI_Irecv(&records[r], sizeof(Record), MPI_BYTE, static_cast<int>(r), kRecordTag,
                        comm_, &receives[r]),
              "MPI_Irecv");
  }
  const auto all_here = [&] {
    int done = 0;
    check_mpi(
        MPI_Testall(static_cast<int>(receives.size()), receives.data(), &done, MPI_STATUSES_IGNORE),
        "MPI_Testall");
    return done != 0;
  };
  if (poll_until(all_here, std::min(kBeforeNotice, site.deadline))) return {};
  send_verdict(kWait, "");
  if (poll_until(all_here, site.deadline)) return {};
  std::vector<int> missing;
  for (std::size_t r = 1; r < receives.size(); ++r) {
    if (test(receives[r])) continue;
    missing.push_back(static_cast<int>(r));
    cancel(receives[r]);
  }
  return missing;
}

void CallChecker::send_verdict(char kind, const std::string& text) {
  int size = 1;
  check_mpi(MPI_Comm_size(comm_, &size), "MPI_Comm_size");
  auto message = std::make_unique<std::string>(kind + text.substr(0, kMaxVerdict - 1));
  std::vector<MPI_Request> sends(static_cast<std::size_t>(size), MPI_REQUEST_NULL);
  for (int r = 1; r < size; ++r) {
    check_mpi(MPI_Isend(message->data(), static_cast<int>(message->size()), MPI_CHAR, r,
                        kVerdictTag, comm_, &sends[static_cast<std::size_t>(r)]),
              "MPI_Isend");
  }
  const auto all_sent = [&] {
    int done = 0;
    check_mpi(MPI_Testall(size, sends.data(), &done, MPI_STATUSES_IGNORE), "MPI_Testall");
    return done != 0;
  };
  if (!poll_until(all_sent, kForDelivery)) (void)message.release();  // MPI still reads it
}

// Every other rank: says what it is about to do and waits for rank 0's word.
void CallChecker::report(const CallSite& site, const Record& own) {
  MPI_Request send = MPI_REQUEST_NULL, receive = MPI_REQUEST_NULL;
  auto record = std::make_unique<Record>(own);
  auto answer = std::make_unique<std::string>(kMaxVerdict, '\0');
  check_mpi(MPI_Isend(record.get(), sizeof(Record), MPI_BYTE, 0, kRecordTag, comm_, &send),
            "MPI_Isend");
  bool sent = false;
  std::chrono::milliseconds deadline = site.deadline;
  do {
    int length = 0;
    check_mpi(MPI_Irecv(answer->data(), static_cast<int>(kMaxVerdict), MPI_CHAR, 0, kVerdictTag,
                        comm_, &receive),
              "MPI_Irecv");
    const auto answered = [&] {
      sent = sent || test(send);
      int done = 0;
      MPI_Status status;
      check_mpi(MPI_Test(&receive, &done, &status), "MPI_Test");
      if (done != 0) MPI_Get_count(&status, MPI_CHAR, &length);
      return done != 0;
    };
    if (!poll_until(answered, deadline)) {
      broken_ = true;
      cancel(receive);
      if (!sent) (void)record.release();  // MPI still reads it
      log_rank(LogLevel::error, "deadline passed: {}", where_am_i());
      fail(ErrorKind::communication,
           "{} on {}: rank 0 did not come within {:.1f} s (failed, far behind or gone another "
           "way); {} is "
           "where this rank waits",
           to_string(site.operation), site.communicator,
           static_cast<double>(deadline.count()) * 1e-3, describe_record(site.rank, own));
    }
    answer->resize(kMaxVerdict);
    if (answer->front() != kWait) answer->resize(static_cast<std::size_t>(length));
    deadline = site.deadline + kForDelivery;
  } while (answer->front() == kWait);
  if (answer->front() == kGo) return;
  broken_ = answer->front() == kMissing;
  if (broken_) log_rank(LogLevel::error, "deadline passed: {}", where_am_i());
  throw Error(ErrorKind::communication, answer->substr(1));
}

}  // namespace tessera::comm
