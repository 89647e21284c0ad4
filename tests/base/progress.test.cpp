// SPDX-License-Identifier: Apache-2.0
// What a user sees of a long piece of work, on a terminal and in a log.
#include "base/progress.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>

using namespace tessera;
using namespace std::chrono_literals;
using Catch::Contains;

namespace {

constexpr std::int64_t mib = 1 << 20, gib = 1 << 30;

/// What `body` writes to stderr, which is `descriptor` meanwhile; it is read from `reader` once the
/// descriptor is closed: a terminal passes on only then all that it was given. Closes both.
std::string written(int descriptor, int reader, const std::function<void()>& body) {
  std::fflush(stderr);
  const int before = ::dup(STDERR_FILENO);
  ::dup2(descriptor, STDERR_FILENO);
  ::close(descriptor);
  body();
  std::fflush(stderr);
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  std::string text;
  char part[4096];
  for (ssize_t count; (count = ::read(reader, part, sizeof part)) > 0;) {
    text.append(part, static_cast<std::size_t>(count));
  }
  ::close(reader);
  return text;
}

std::string written_to_pipe(const std::function<void()>& body) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  return written(ends[1], ends[0], body);
}

std::string written_to_terminal(const std::function<void()>& body) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(terminal >= 0);
  REQUIRE(::grantpt(terminal) == 0);
  REQUIRE(::unlockpt(terminal) == 0);
  const int user = ::open(::ptsname(terminal), O_RDWR | O_NOCTTY);
  REQUIRE(user >= 0);
  return written(user, terminal, body);
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
    ++found;
  return found;
}

}  // namespace

TEST_CASE("progress is told in bytes, share, rate and the time that is left") {
  CHECK(describe_progress(gib, 4 * gib, 2.0) == "1.0 of 4.0 GiB (25 %), 0.54 GB/s, 6 s to go");
  CHECK(describe_progress(4 * gib, 4 * gib, 8.0) == "4.0 of 4.0 GiB (100 %), 0.54 GB/s");
  CHECK(describe_progress(0, 4 * gib, 0.0) == "0.0 of 4.0 GiB (0 %), 0.00 GB/s");
  CHECK(describe_progress(0, 0, 1.0) == "0.0 of 0.0 GiB (100 %), 0.00 GB/s");
}

TEST_CASE("work that is done within two seconds is not worth a word") {
  const auto work = [] {
    const ProgressBar::Clock::time_point start;
    ProgressBar bar("loading", 10 * mib, 20 * mib, start);
    for (int k = 0; k < 19; ++k) bar.at(k * mib / 2, start + k * 100ms);
  };
  CHECK(written_to_pipe(work).empty());
  CHECK(written_to_terminal(work).empty());
}

TEST_CASE("a log gets a line every five seconds, with rank 0's share as that of all") {
  const std::string text = written_to_pipe([] {
    const ProgressBar::Clock::time_point start;
    ProgressBar bar("loading", gib, 4 * gib, start);
    for (int k = 1; k <= 12; ++k) bar.at(k * gib / 16, start + k * 1s);
  });
  CHECK(count(text, "\n") == 2);
  CHECK_THAT(text, Contains("loading: 1.2 of 4.0 GiB (31 %), 0.27 GB/s, 11 s to go"));
  CHECK_THAT(text, Contains("loading: 2.5 of 4.0 GiB (62 %), 0.27 GB/s, 6 s to go"));
}

TEST_CASE("a terminal gets one line that is rewritten and cleared in the end") {
  const std::string text = written_to_terminal([] {
    const ProgressBar::Clock::time_point start;
    ProgressBar bar("saving", gib, gib, start);
    bar.at(gib / 4, start + 2s);
    bar.at(gib / 4 + 1, start + 2s + 50ms);  // too soon
    bar.at(gib / 2, start + 4s);
  });
  CHECK(count(text, "\r\033[Ksaving: ") == 2);
  CHECK(count(text, "\n") == 0);
  CHECK(text.ends_with("4 s to go\r\033[K"));
}

TEST_CASE("the own age of this process is known") {
  const std::optional<double> seconds = process_seconds();
  REQUIRE(seconds.has_value());
  CHECK(*seconds >= 0.0);
  CHECK(*seconds < 3600.0);
}
