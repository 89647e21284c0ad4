// SPDX-License-Identifier: Apache-2.0
// Who gets a run's directory: whether a lock's owner is still there is told by its process, by its
// host and by Slurm. The owner of each lock here is this process, with one thing changed.
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tessera/trainer/run_lock.hpp>

#include "base/error.hpp"
#include "base/log.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"
#include "trainer/fake_squeue.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Json = nlohmann::json;

std::string read_text(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Takes and gives back; what it says if it cannot. collective over world.
std::string refusal(const comm::Communicator& world, const fs::path& directory) {
  std::string text;
  try {
    const RunLock lock(world, directory);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::file);
    text = error.what();
  }
  world.barrier("given back");
  CHECK_SAME(world, text);
  return text;
}

/// A lock of this process, changed; then refusal(). collective over world.
std::string refusal_by(const comm::Communicator& world, const fs::path& directory,
                       const Json& changes) {
  std::string text;
  {
    const RunLock lock(world, directory);
    text = read_text(directory / "lock");
    world.barrier("read");
  }
  world.barrier("given back");
  if (world.rank() == 0) {
    Json owner = Json::parse(text);
    owner.update(changes);
    std::ofstream(directory / "lock") << owner.dump();
  }
  world.barrier("written");
  const std::string refused = refusal(world, directory);
  CHECK(fs::exists(directory / "lock") == !refused.empty());
  world.barrier("looked");
  if (world.rank() == 0) fs::remove(directory / "lock");
  world.barrier("removed");
  return refused;
}

/// Of a child that has ended.
int dead_pid() {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(0);
  ::waitpid(pid, nullptr, 0);
  return pid;
}

}  // namespace

TEST_CASE("a directory has one run, which gives it back") {
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world);
  {
    const RunLock lock(world, directory / "run");
    CHECK_THAT(refusal(world, directory / "run"),
               Contains("is in use by a run on") &&
                   Contains("process " + test::value_of_rank_0(world, std::to_string(getpid()))) &&
                   Contains("--output"));
    lock.require(world);
  }
  world.barrier("given back");
  CHECK_FALSE(fs::exists(directory / "run"));  // it was made for nothing
  CHECK(refusal(world, directory.path()) == "");
  CHECK(fs::exists(directory.path()));  // not made by the lock
  world.barrier("looked");
}

TEST_CASE("a lock is stale when its process has ended, and only then") {
  set_log_level(LogLevel::error);
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world);
  const auto by = [&](const Json& changes) { return refusal_by(world, directory.path(), changes); };
  CHECK(by({{"pid", dead_pid()}}) == "");
  CHECK(by({{"start_ticks", 1}}) == "");  // the number belongs to another process now
  CHECK(by({{"boot", "another"}}) == "");
  CHECK_THAT(by({{"host", "elsewhere"}, {"pid", dead_pid()}}), Contains("elsewhere"));
  CHECK_THAT(by({{"pid_namespace", "another"}, {"pid", dead_pid()}}), Contains("in use by"));
  CHECK_THAT(by({{"host", ""}}), Contains("a run that left no name"));
}

TEST_CASE("whether a job on another host is still there, Slurm tells") {
  set_log_level(LogLevel::error);
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world), programs(world);
  const test::FakeSlurm slurm(programs.path(), "17");
  const auto by = [&](const std::string& answer, int code, Json changes) {
    if (world.rank() == 0) slurm.answers(answer, code);
    changes["host"] = "elsewhere";
    return refusal_by(world, directory.path(), changes);
  };
  const Json other{{"job", "16"}};
  for (const char* state : {"RUNNING", "COMPLETING", "SUSPENDED"})
    CHECK_THAT(by(state, 0, other), Contains("job 16 of cluster test (elsewhere"));
  if (world.rank() == 0) CHECK_THAT(slurm.arguments(), Contains("--jobs=16"));
  for (const char* state : {"", "PENDING", "COMPLETED", "NODE_FAIL", "CANCELLED"})
    CHECK(by(state, 0, other) == "");
  CHECK(by("slurm_load_jobs error: Invalid job id specified", 1, other) == "");
  CHECK(by("Unable to contact slurm controller", 1, other) != "");
  CHECK(by("", 0, {{"job", "16"}, {"cluster", "another"}}) != "");
  CHECK(by("", 0, {{"job", "16; true"}}) != "");
  CHECK(by("RUNNING", 0, {{"restart", -1}}) == "");  // an earlier start of this very job
  CHECK(by("17.0\n17.3", 0, {{"step", "3"}}) != "");
  CHECK(by("17.0\n17.30", 0, {{"step", "3"}}) == "");
}

TEST_CASE("a lock that was lost is noticed, and the other's left alone") {
  const comm::Communicator world(MPI_COMM_WORLD, "test");
  const test::TemporaryDirectory directory(world);
  {
    const RunLock lock(world, directory.path());
    if (world.rank() == 0) fs::remove(directory / "lock");
    CHECK_THROWS_WITH(lock.require(world), Contains("its lock is gone"));
    if (world.rank() == 0) std::ofstream(directory / "lock") << R"({"host":"elsewhere","pid":7})";
    CHECK_THROWS_WITH(lock.require(world), Contains("in use by a run on elsewhere, process 7"));
  }
  world.barrier("given back");
  CHECK(fs::exists(directory / "lock"));
  world.barrier("looked");
}

}  // namespace tessera::trainer
