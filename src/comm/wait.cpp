// SPDX-License-Identifier: Apache-2.0
#include "comm/wait.hpp"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <exception>
#include <thread>

#include "base/log.hpp"
#include "base/polling.hpp"
#include "comm/device_collectives.hpp"
#include "comm/roll_call.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr microseconds kSpin{5};  // idle for less: a message is nearly there
constexpr microseconds kYield{100};
constexpr microseconds kShortestSleep{20};
constexpr microseconds kLongestSleep{500};

// Data moves only inside test(), a few fragments at a time: a call that took this long moved some,
// and to sleep now would slow the transfer down.
constexpr microseconds kBusy{10};

// After so long a wait somebody may be past a deadline. Not counted from the last data: what test()
// takes after a sleep may pass for some.
constexpr milliseconds kLongWait{1000};
constexpr milliseconds kBetweenAnswers{50};

// While an exception unwinds the buffers are about to go: give the operation a moment, not ten
// minutes.
constexpr milliseconds kUnwindingDeadline{2000};

std::chrono::nanoseconds thread_cpu_time() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

}  // namespace

std::string describe(const CallSite& site) {
  return fmt::format("{} '{}' on {}, rank {} of {}", to_string(site.operation), site.what,
                     site.communicator, site.rank, site.size);
}

bool poll_until(const std::function<bool()>& done, milliseconds deadline) {
  if (done()) return true;
  const auto start = Clock::now();
  auto idle_since = start, answer_next = start + kLongWait;
  for (;;) {
    const auto now = Clock::now();
    const auto idle = std::chrono::duration_cast<microseconds>(now - idle_since);
    if (now > answer_next) {
      answer_roll_call();
      answer_next = now + kBetweenAnswers;
    }
    if (idle > kYield) {
      check_device_collectives();
      std::this_thread::sleep_for(std::clamp(idle / 64, kShortestSleep, kLongestSleep));
    } else if (idle > kSpin) {
      sched_yield();
    }
    poll_now_and_then();
    const auto cpu_before = thread_cpu_time();
    if (done()) return true;
    if (now - start > deadline) return false;
    if (thread_cpu_time() - cpu_before > kBusy) idle_since = Clock::now();
  }
}

void wait_until(const CallSite& site, const std::function<bool()>& done) {
  const bool unwinding = std::uncaught_exceptions() > 0;
  const milliseconds deadline =
      unwinding ? std::min(site.deadline, kUnwindingDeadline) : site.deadline;
  note_collective_begin(site.communicator, to_string(site.operation), site.what);
  if (!poll_until(done, deadline)) {
    const std::string where = where_am_i(), roll = unwinding ? "" : call_roll();
    log_rank(LogLevel::error, "deadline passed: {}{}{}", where, roll.empty() ? "" : "; ", roll);
    fail(ErrorKind::communication,
         "{}: not complete after {:.1f} s (another rank has failed, is far behind or went another "
         "way); "
         "see what the other ranks print, or set TESSERA_DEADLINE_S to wait longer",
         describe(site), static_cast<double>(deadline.count()) * 1e-3);
  }
  note_collective_end();
}

void wait_for(const CallSite& site, Operation& operation) {
  wait_until(site, [&] {
    try {
      return operation.test();
    } catch (const Error& error) {
      throw Error(error.kind(), describe(site) + ": " + error.what());
    }
  });
}

}  // namespace tessera::comm
