// SPDX-License-Identifier: Apache-2.0
#include "support/device_fault.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <stdexcept>

namespace tessera::test {

void touch(const void* data) { (void)*static_cast<const volatile char*>(data); }

std::string fault_of(const std::function<void()>& body) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) throw std::runtime_error("pipe");
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    body();
    _exit(EXIT_SUCCESS);
  }
  close(ends[1]);
  std::string text;
  std::array<char, 4096> part{};
  for (ssize_t n = 0; (n = read(ends[0], part.data(), part.size())) > 0;) {
    text.append(part.data(), static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) return text + "it ended by signal " + std::to_string(WTERMSIG(status));
  return WEXITSTATUS(status) == EXIT_SUCCESS ? text + "it went on" : text;
}

}  // namespace tessera::test
