// SPDX-License-Identifier: Apache-2.0
#include "comm/watchdog.hpp"

#include <mpi.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/error.hpp"

namespace tessera::comm {
namespace {

using Clock = std::chrono::steady_clock;

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

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
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

void watch() {
  State& s = state();
  std::unique_lock lock(s.mutex);
  for (;;) {
    ActivePhase* phase = first_to_expire(s);
    if (phase == nullptr) {
      s.changed.wait(lock);
    } else if (Clock::now() < *phase->expires) {
      s.changed.wait_until(lock, Clock::time_point(*phase->expires));
    } else {
      phase->expires.reset();
      const std::string dump =
          fmt::format("phase '{}' passed its deadline: {}", phase->name, describe_locked(s));
      const auto hook = s.hook ? s.hook : print_and_abort;
      lock.unlock();
      hook(dump);
      lock.lock();
    }
  }
}

}  // namespace

Phase::Phase(std::string name, std::chrono::milliseconds deadline) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  id_ = s.next_id++;
  s.phases.push_back({id_, std::move(name), std::nullopt});
  if (deadline.count() <= 0) return;
  s.phases.back().expires = Clock::now() + deadline;
  if (!s.watching) std::thread(watch).detach();
  s.watching = true;
  s.changed.notify_one();
}

Phase::~Phase() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  std::erase_if(s.phases, [this](const ActivePhase& phase) { return phase.id == id_; });
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
