// SPDX-License-Identifier: Apache-2.0
#include "lock_owner.hpp"

#include <fmt/chrono.h>
#include <pwd.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/host_name.hpp"

namespace tessera::trainer {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string user_name() {
  const passwd* entry = ::getpwuid(::getuid());
  return entry != nullptr ? entry->pw_name : fmt::format("{}", ::getuid());
}

std::string own_pid_namespace() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/ns/pid", error).string();
}

/// Start of a process [clock ticks since boot]; 0 if there is none of that number.
std::int64_t start_ticks_of(std::int64_t pid) {
  const std::string line = first_line(fmt::format("/proc/{}/stat", pid));
  const std::size_t name_end = line.rfind(')');  // the name before it may hold anything
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  std::string state, field;
  fields >> state;
  if (state == "Z" || state == "X") return 0;  // it only waits to be buried
  for (int k = 0; k < 18; ++k) fields >> field;
  std::int64_t ticks = 0;
  fields >> ticks;
  return ticks;
}

std::string text(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

std::int64_t number(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

std::string why_job_gone(const SlurmJob& owner, const SlurmJob& own) {
  const bool same_cluster = !own.cluster.empty() && own.cluster == owner.cluster;
  if (owner.job.empty() || !same_cluster) return "";
  if (owner.job != own.job) {
    return slurm_job_state(owner.job) == JobState::absent ? "that job does not run any more" : "";
  }
  if (owner.restart != own.restart) return "this job was requeued since";
  if (owner.step.empty() || owner.step == own.step) return "";
  return slurm_step_state(owner.job, owner.step) == JobState::absent ? "that step has ended" : "";
}

}  // namespace

LockOwner own_lock_owner() {
  LockOwner owner;
  owner.host = host_name();
  owner.user = user_name();
  owner.since = fmt::format("{:%F %T}", fmt::localtime(std::time(nullptr)));
  owner.pid = ::getpid();
  owner.start_ticks = start_ticks_of(owner.pid);
  owner.boot = first_line("/proc/sys/kernel/random/boot_id");
  owner.pid_namespace = own_pid_namespace();
  owner.slurm = own_slurm_job();
  return owner;
}

std::string to_json(const LockOwner& owner) {
  return nlohmann::ordered_json{{"host", owner.host},
                                {"pid", owner.pid},
                                {"user", owner.user},
                                {"since", owner.since},
                                {"cluster", owner.slurm.cluster},
                                {"job", owner.slurm.job},
                                {"restart", owner.slurm.restart},
                                {"step", owner.slurm.step},
                                {"start_ticks", owner.start_ticks},
                                {"boot", owner.boot},
                                {"pid_namespace", owner.pid_namespace}}
      .dump();
}

LockOwner parse_lock_owner(const std::string& json_text) {
  const auto json = nlohmann::json::parse(json_text, nullptr, false);
  LockOwner owner;
  if (!json.is_object()) return owner;
  owner.host = text(json, "host");
  owner.user = text(json, "user");
  owner.since = text(json, "since");
  owner.pid = number(json, "pid");
  owner.start_ticks = number(json, "start_ticks");
  owner.boot = text(json, "boot");
  owner.pid_namespace = text(json, "pid_namespace");
  owner.slurm = {text(json, "cluster"), text(json, "job"), text(json, "step"),
                 static_cast<int>(number(json, "restart"))};
  return owner;
}

std::string describe(const LockOwner& owner) {
  if (owner.host.empty()) return "a run that left no name";
  const std::string where = fmt::format("{}, process {} of user {}, since {}", owner.host,
                                        owner.pid, owner.user, owner.since);
  if (owner.slurm.job.empty()) return fmt::format("a run on {}", where);
  return fmt::format("job {} of cluster {} ({})", owner.slurm.job, owner.slurm.cluster, where);
}

std::string why_gone(const LockOwner& owner) {
  if (owner.host.empty()) return "";
  const LockOwner own = own_lock_owner();
  if (owner.host == own.host) {
    if (owner.boot != own.boot) return "that host was restarted since";
    if (owner.pid_namespace == own.pid_namespace) {
      const bool is_there = start_ticks_of(owner.pid) == owner.start_ticks;
      return is_there ? "" : "that process has ended";
    }
  }
  return why_job_gone(owner.slurm, own.slurm);
}

}  // namespace tessera::trainer
