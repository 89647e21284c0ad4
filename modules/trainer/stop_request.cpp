// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <tessera/trainer/stop_request.hpp>

namespace tessera::trainer {
namespace {

volatile std::sig_atomic_t stop_asked = 0;
struct sigaction previous_term, previous_usr1;

void ask_to_stop(int) { stop_asked = 1; }

}  // namespace

StopRequest::StopRequest() {
  stop_asked = 0;
  struct sigaction action {};
  action.sa_handler = ask_to_stop;
  action.sa_flags = SA_RESTART;  // files being read and written go on
  sigaction(SIGTERM, &action, &previous_term);
  sigaction(SIGUSR1, &action, &previous_usr1);
}

StopRequest::~StopRequest() {
  sigaction(SIGTERM, &previous_term, nullptr);
  sigaction(SIGUSR1, &previous_usr1, nullptr);
}

bool StopRequest::asked() const { return stop_asked != 0; }

}  // namespace tessera::trainer
