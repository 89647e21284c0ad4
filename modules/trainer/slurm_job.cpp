// SPDX-License-Identifier: Apache-2.0
#include "slurm_job.hpp"

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace tessera::trainer {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

struct Answer {
  int code = -1;
  std::string text;  ///< of both streams, without the last line's end
};

Answer squeue(const std::string& arguments) {
  Answer answer;
  FILE* pipe = ::popen(
      ("LC_ALL=C SLURM_TIME_FORMAT=standard timeout 10 squeue " + arguments + " 2>&1").c_str(),
      "re");
  if (pipe == nullptr) return answer;
  std::array<char, 256> part;
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) answer.text += part.data();
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) answer.code = WEXITSTATUS(status);
  while (answer.text.ends_with('\n')) answer.text.pop_back();
  return answer;
}

/// May stand in a shell's command: lock files come from elsewhere.
bool is_job_name(const std::string& name) {
  return !name.empty() && name.find_first_not_of("0123456789_.+") == std::string::npos;
}

std::optional<double> whole_number(std::string_view digits) {
  std::int64_t value = -1;
  const char* last = digits.data() + digits.size();
  const auto [end, error] = std::from_chars(digits.data(), last, value);
  if (error != std::errc() || end != last || value < 0) return std::nullopt;
  return static_cast<double>(value);
}

/// "2026-05-04T10:11:12" in seconds since the epoch.
std::optional<double> local_time(const std::string& text) {
  std::tm time{};
  const char* end = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &time);
  if (end == nullptr || *end != '\0') return std::nullopt;
  time.tm_isdst = -1;
  return static_cast<double>(std::mktime(&time));
}

bool is_unknown_to_slurm(const Answer& answer) {
  return answer.text.find("Invalid job id") != std::string::npos;
}

}  // namespace

SlurmJob own_slurm_job() {
  return {environment("SLURM_CLUSTER_NAME"), environment("SLURM_JOB_ID"),
          environment("SLURM_STEP_ID"), std::atoi(environment("SLURM_RESTART_COUNT").c_str())};
}

JobState slurm_job_state(const std::string& job) {
  if (!is_job_name(job)) return JobState::unknown;
  const Answer answer = squeue(fmt::format("--noheader --states=all --jobs={} --format=%T", job));
  if (is_unknown_to_slurm(answer)) return JobState::absent;
  if (answer.code != 0) return JobState::unknown;
  constexpr std::array having_no_nodes{
      "",          "PENDING",   "REQUEUED",      "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT",
      "REVOKED",   "BOOT_FAIL", "CANCELLED",     "COMPLETED",    "DEADLINE",    "FAILED",
      "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "TIMEOUT"};
  return std::ranges::count(having_no_nodes, answer.text) > 0 ? JobState::absent : JobState::active;
}

JobState slurm_step_state(const std::string& job, const std::string& step) {
  if (!is_job_name(job) || !is_job_name(step)) return JobState::unknown;
  const Answer answer = squeue(fmt::format("--noheader --steps --jobs={} --format=%i", job));
  if (is_unknown_to_slurm(answer)) return JobState::absent;
  if (answer.code != 0) return JobState::unknown;
  const std::string name = fmt::format("\n{}.{}\n", job, step);
  return ("\n" + answer.text + "\n").find(name) == std::string::npos ? JobState::absent
                                                                     : JobState::active;
}

std::optional<double> slurm_time_left_s() {
  const std::string job = own_slurm_job().job;
  if (!is_job_name(job)) return std::nullopt;
  // The end and not %L, which follows the limit in whole minutes even where the end was moved.
  const Answer answer = squeue(fmt::format("--noheader --jobs={} --format=%e", job));
  const std::optional<double> end = answer.code == 0
                                        ? local_time(answer.text)  // nothing of N/A: no limit
                                        : parse_duration(environment("SLURM_JOB_END_TIME"));
  if (!end) return std::nullopt;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return *end - std::chrono::duration<double>(now).count();
}

std::optional<double> parse_duration(std::string_view text) {
  double days = 0.0, seconds = 0.0;
  if (const std::size_t dash = text.find('-'); dash != std::string_view::npos) {
    const auto before = whole_number(text.substr(0, dash));
    text.remove_prefix(dash + 1);
    if (!before || std::ranges::count(text, ':') != 2) return std::nullopt;
    days = *before;
  }
  if (std::ranges::count(text, ':') > 2) return std::nullopt;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(':', begin), text.size());
    const auto value = whole_number(text.substr(begin, end - begin));
    if (!value) return std::nullopt;
    seconds = 60.0 * seconds + *value;
    begin = end + 1;
  }
  return 86400.0 * days + seconds;
}

}  // namespace tessera::trainer
