// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <mutex>

#include "base/progress.hpp"

namespace tessera {
namespace {

struct State {
  std::mutex mutex;
  LogSink sink;
  LogLevel level = LogLevel::info;
  int rank = 0;
  int num_ranks = 1;
};

State& state() {
  static State instance;
  return instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug: return spdlog::level::debug;
    case LogLevel::info: return spdlog::level::info;
    case LogLevel::warning: return spdlog::level::warn;
    case LogLevel::error: return spdlog::level::err;
  }
  return spdlog::level::info;
}

// Colours only on a terminal: spdlog's colour sink looks at the stream itself.
spdlog::logger& stderr_logger() {
  static spdlog::logger logger = [] {
    spdlog::logger made("tessera", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made.set_pattern("tessera %^%l%$: %v");
    made.set_level(spdlog::level::debug);
    made.flush_on(spdlog::level::debug);
    return made;
  }();
  return logger;
}

/// The caller holds the mutex.
void emit_locked(State& s, LogLevel level, const std::string& text) {
  if (level < s.level) return;
  if (s.sink) {
    s.sink(level, text);
  } else {
    stderr_logger().log(to_spdlog(level), "{}", text);
  }
}

}  // namespace

void set_log_sink(LogSink sink) {
  const std::lock_guard lock(state().mutex);
  state().sink = std::move(sink);
}

void set_log_level(LogLevel level) {
  const std::lock_guard lock(state().mutex);
  state().level = level;
}

bool logs_to_terminal() {
  const std::lock_guard lock(state().mutex);
  const State& s = state();
  return s.rank == 0 && !s.sink && s.level <= LogLevel::info && ::isatty(STDERR_FILENO) != 0;
}

void set_log_rank(int rank, int num_ranks) {
  const std::lock_guard lock(state().mutex);
  state().rank = rank;
  state().num_ranks = num_ranks;
}

void log_rank_message(LogLevel level, const std::string& text) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  emit_locked(s, level, s.num_ranks > 1 ? fmt::format("[rank {}] {}", s.rank, text) : text);
}

void log_message(LogLevel level, const std::string& text) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (s.rank == 0) emit_locked(s, level, text);
}

}  // namespace tessera
