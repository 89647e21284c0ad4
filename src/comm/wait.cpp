// SPDX-License-Identifier: Apache-2.0
#include "comm/wait.hpp"

#include <sched.h>

#include <algorithm>
#include <exception>
#include <thread>

#include "base/log.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr microseconds kSpin{5};      // a message that is nearly there
constexpr microseconds kYield{1000};  // data in flight: progress is made only inside test()
constexpr microseconds kShortestSleep{20};
constexpr microseconds kLongestSleep{200};

// While an exception unwinds the buffers are about to go: give the operation a moment, not ten
// minutes.
constexpr milliseconds kUnwindingDeadline{2000};

}  // namespace

std::string describe(const CallSite& site) {
  return fmt::format("{} '{}' on {}, rank {} of {}", to_string(site.operation), site.what,
                     site.communicator, site.rank, site.size);
}

bool poll_until(const std::function<bool()>& done, milliseconds deadline) {
  if (done()) return true;
  const auto start = Clock::now();
  microseconds sleep = kShortestSleep;
  for (;;) {
    const auto waited = Clock::now() - start;
    if (waited > kYield) {
      std::this_thread::sleep_for(sleep);
      sleep = std::min(sleep * 2, kLongestSleep);
    } else if (waited > kSpin) {
      sched_yield();
    }
    if (done()) return true;
    if (waited > deadline) return false;
  }
}

void wait_for(const CallSite& site, Operation& operation) {
  const bool unwinding = std::uncaught_exceptions() > 0;
  const milliseconds deadline =
      unwinding ? std::min(site.deadline, kUnwindingDeadline) : site.deadline;
  note_collective_begin(site.communicator, to_string(site.operation), site.what);
  bool complete = false;
  try {
    complete = poll_until([&] { return operation.test(); }, deadline);
  } catch (const Error& error) {
    throw Error(error.kind(), describe(site) + ": " + error.what());
  }
  if (!complete) {
    log_rank(LogLevel::error, "deadline passed: {}", where_am_i());
    fail(ErrorKind::communication,
         "{}: not complete after {:.1f} s (another rank has failed, is far behind or went another "
         "way); "
         "see what the other ranks print, or set TESSERA_DEADLINE_S to wait longer",
         describe(site), static_cast<double>(deadline.count()) * 1e-3);
  }
  note_collective_end();
}

}  // namespace tessera::comm
