// SPDX-License-Identifier: Apache-2.0
#include "comm/watchdog.hpp"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/host_name.hpp"
#include "base/seconds_since.hpp"
#include "comm/device_collectives.hpp"

namespace tessera::comm {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct ActivePhase {
  long long id;
  std::string name;
  std::optional<Clock::time_point> expires;  // empty: no deadline, or reported already
};

struct LastCollective {
  std::string communicator, operation, what;
  Clock::time_point since;
  bool ended = false;
};

struct State {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<ActivePhase> phases;
  std::vector<std::pair<Watched, Clock::time_point>> watched;  // and when it expires
  LastCollective last;
  std::function<void(const std::string&)> hook;
  long long next_id = 1;
  long long step = -1;
  int rank = -1;
  bool watching = false;
};

// Never destroyed: the watching thread outlives main.
State& state() {
  static State& instance = *new State;
  return instance;
}

std::string describe_last(const LastCollective& last) {
  if (last.operation.empty()) return "before the first collective";
  const std::string call =
      fmt::format("{} '{}' on {}", last.operation, last.what, last.communicator);
  const double s = seconds_since(last.since);
  return last.ended ? fmt::format("{:.1f} s after {}", s, call)
                    : fmt::format("in {} for {:.1f} s", call, s);
}

std::string describe_locked(const State& s) {
  std::string text = s.rank < 0 ? "rank not known yet" : fmt::format("rank {}", s.rank);
  text += fmt::format(" on {}", host_name());
  if (s.step >= 0) text += fmt::format(", step {}", s.step);
  for (const ActivePhase& phase : s.phases) text += fmt::format(", phase '{}'", phase.name);
  return text + ", " + describe_last(s.last);
}

// A job that hangs in MPI_Init cannot be aborted by MPI; one that hangs in MPI_Abort, or here
// because the main thread holds a stream whose reader is gone, is ended by SIGALRM.
void print_and_abort(const std::string& dump) {
  alarm(10);
  std::fprintf(stderr, "tessera error: %s\n", dump.c_str());
  std::fflush(nullptr);
  const int code = exit_code(ErrorKind::communication);
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized != 0 && finalized == 0) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

ActivePhase* first_to_expire(State& s) {
  ActivePhase* first = nullptr;
  for (ActivePhase& phase : s.phases) {
    if (phase.expires && (first == nullptr || *phase.expires < *first->expires)) first = &phase;
  }
  return first;
}

void report(std::unique_lock<std::mutex>& lock, const std::string& dump) {
  const auto hook = state().hook ? state().hook : print_and_abort;
  lock.unlock();
  hook(dump);
  lock.lock();
}

// What is wrong with the watched work, or empty. Drops what is done. Asks without the lock: the
// main thread may be about to note something while it holds a lock of the device's.
std::string look_at_watched(std::unique_lock<std::mutex>& lock) {
  auto looked_at = std::exchange(state().watched, {});
  lock.unlock();
  std::string trouble;
  try {
    check_device_collectives();
    std::erase_if(looked_at, [](const auto& each) { return each.first.done(); });
  } catch (const std::exception& error) {
    trouble = error.what();
  }
  for (const auto& [watched, expires] : looked_at) {
    if (!trouble.empty() || Clock::now() < expires) continue;
    trouble = fmt::format(
        "{}: not complete after {:.1f} s (another rank has failed, is far behind or went another "
        "way)",
        watched.what, static_cast<double>(watched.deadline.count()) * 1e-3);
  }
  if (!trouble.empty()) {
    const std::string states = abort_device_collectives();
    trouble += states.empty() ? "" : "; " + states;
    looked_at.clear();
  }
  lock.lock();
  state().watched.insert(state().watched.begin(), std::make_move_iterator(looked_at.begin()),
                         std::make_move_iterator(looked_at.end()));
  return trouble;
}

void watch_all() {
  constexpr milliseconds between_looks{200};
  State& s = state();
  std::unique_lock lock(s.mutex);
  for (;;) {
    ActivePhase* phase = first_to_expire(s);
    if (phase != nullptr && Clock::now() >= *phase->expires) {
      phase->expires.reset();
      report(lock,
             fmt::format("phase '{}' passed its deadline: {}", phase->name, describe_locked(s)));
    } else if (!s.watched.empty()) {
      const auto next = Clock::now() + between_looks;
      s.changed.wait_until(lock, phase == nullptr ? next : std::min(next, *phase->expires));
      const std::string trouble = look_at_watched(lock);
      if (!trouble.empty()) report(lock, fmt::format("{}: {}", trouble, describe_locked(s)));
    } else if (phase != nullptr) {
      s.changed.wait_until(lock, Clock::time_point(*phase->expires));
    } else {
      s.changed.wait(lock);
    }
  }
}

void start_watching(State& s) {
  if (!s.watching) std::thread(watch_all).detach();
  s.watching = true;
  s.changed.notify_one();
}

}  // namespace

Phase::Phase(std::string name, std::chrono::milliseconds deadline) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  id_ = s.next_id++;
  s.phases.push_back({id_, std::move(name), std::nullopt});
  if (deadline.count() <= 0) return;
  s.phases.back().expires = Clock::now() + deadline;
  start_watching(s);
}

Phase::~Phase() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  std::erase_if(s.phases, [this](const ActivePhase& phase) { return phase.id == id_; });
}

void watch(Watched watched) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const auto expires = Clock::now() + watched.deadline;
  s.watched.emplace_back(std::move(watched), expires);
  if (s.watched.size() == 1) start_watching(s);
}

void set_expiry_hook(std::function<void(const std::string& dump)> hook) {
  const std::lock_guard lock(state().mutex);
  state().hook = std::move(hook);
}

std::chrono::milliseconds default_deadline() {
  constexpr double ten_minutes_s = 600;
  const char* text = std::getenv("TESSERA_DEADLINE_S");
  if (text == nullptr || *text == '\0') {
    return std::chrono::milliseconds(static_cast<long long>(ten_minutes_s * 1e3));
  }
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (*end != '\0' || !(seconds >= 1e-3) || seconds > 1e9) {
    fail(ErrorKind::usage,
         "TESSERA_DEADLINE_S is '{}' (it is how long a rank waits for the others); "
         "give a number of seconds from 0.001 to 1e9",
         text);
  }
  return std::chrono::milliseconds(static_cast<long long>(seconds * 1e3));
}

void set_job_rank(int rank) {
  const std::lock_guard lock(state().mutex);
  state().rank = rank;
}

void set_current_step(long long step) {
  const std::lock_guard lock(state().mutex);
  state().step = step;
}

void note_collective_begin(std::string_view communicator, std::string_view operation,
                           std::string_view what) {
  LastCollective& last = state().last;
  const std::lock_guard lock(state().mutex);
  last.communicator = communicator;
  last.operation = operation;
  last.what = what;
  last.since = Clock::now();
  last.ended = false;
}

void note_collective_end() {
  const std::lock_guard lock(state().mutex);
  state().last.since = Clock::now();
  state().last.ended = true;
}

std::string where_am_i() {
  const std::lock_guard lock(state().mutex);
  return describe_locked(state());
}

}  // namespace tessera::comm
