// SPDX-License-Identifier: Apache-2.0
// Version, start and end, log.
#include <memory>
#include <mutex>

#include "base/log.hpp"
#include "base/version.hpp"
#include "comm/environment.hpp"
#include "comm/watchdog.hpp"
#include "status.hpp"

namespace {

using namespace tessera;

struct Runtime {
  std::mutex mutex;
  int num_starts = 0;
  std::unique_ptr<comm::Environment> environment;
};

Runtime& runtime() {
  static Runtime& instance = *new Runtime;  // a program may end without tessera_stop()
  return instance;
}

void tell_expiry(const std::string& dump) { log_rank_message(LogLevel::error, dump); }

void start(MPI_Comm communicator, int thread_level) {
  Runtime& state = runtime();
  const std::lock_guard lock(state.mutex);
  if (state.num_starts == 0) {
    int argc = 0;
    char** argv = nullptr;
    state.environment = std::make_unique<comm::Environment>(
        argc, argv,
        comm::EnvironmentOptions{.required_thread_level = thread_level,
                                 .communicator = communicator,
                                 .sets_variables = false});
    comm::set_expiry_hook(tell_expiry);
  } else if (state.environment->thread_level() < thread_level) {
    comm::require_thread_level(state.environment->thread_level(), thread_level);
  }
  ++state.num_starts;
}

}  // namespace

int tessera_version(void) { return TESSERA_VERSION; }

const char* tessera_version_string(void) {
  static const std::string& text = *new std::string(version_string());
  return text.c_str();
}

tessera_status tessera_start(MPI_Comm communicator, int thread_level) {
  return c::guarded([&] { start(communicator, thread_level); });
}

// MPI_Comm_f2c wants a running MPI.
tessera_status tessera_start_f(MPI_Fint communicator, int thread_level) {
  return c::guarded([&] {
    int is_running = 0;
    MPI_Initialized(&is_running);
    start(is_running != 0 ? MPI_Comm_f2c(communicator) : MPI_COMM_WORLD, thread_level);
  });
}

tessera_status tessera_stop(void) {
  return c::guarded([] {
    Runtime& state = runtime();
    const std::lock_guard lock(state.mutex);
    c::require(state.num_starts > 0, "tessera_stop() without tessera_start()");
    if (--state.num_starts > 0) return;
    comm::set_expiry_hook({});
    state.environment.reset();
  });
}

void tessera_set_log(tessera_log_callback callback, void* user) {
  if (callback == nullptr) return set_log_sink({});
  set_log_sink([callback, user](LogLevel level, const std::string& text) {
    callback(static_cast<tessera_log_level>(level), text.c_str(), user);
  });
}

void tessera_set_log_level(tessera_log_level level) { set_log_level(static_cast<LogLevel>(level)); }
