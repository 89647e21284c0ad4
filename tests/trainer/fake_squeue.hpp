// SPDX-License-Identifier: Apache-2.0
// A Slurm job without Slurm: its environment, and a squeue that answers what a test tells it to.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace tessera::test {

/// While it lives this process is a task of job `job` of the cluster `test`. All members are local.
class FakeSlurm {
 public:
  /// `directory` receives the program squeue.
  FakeSlurm(const std::filesystem::path& directory, const std::string& job)
      : program_(directory / "squeue"), path_(std::getenv("PATH")) {
    ::setenv("PATH", (directory.string() + ":" + path_).c_str(), 1);
    ::setenv("SLURM_CLUSTER_NAME", "test", 1);
    ::setenv("SLURM_JOB_ID", job.c_str(), 1);
  }
  ~FakeSlurm() {
    ::setenv("PATH", path_.c_str(), 1);
    for (const char* name : {"SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID",
                             "SLURM_RESTART_COUNT", "SLURM_JOB_END_TIME"})
      ::unsetenv(name);
  }
  FakeSlurm(const FakeSlurm&) = delete;
  FakeSlurm& operator=(const FakeSlurm&) = delete;

  /// What squeue prints, and with which code it ends; `arguments` has those that it was given.
  void answers(const std::string& text, int code = 0) const {
    std::ofstream(program_) << "#!/bin/sh\necho \"$@\" >\"$0.arguments\"\nprintf '" << text
                            << "'\nexit " << code << "\n";
    std::filesystem::permissions(program_, std::filesystem::perms::owner_all);
  }
  /// Of the last call.
  std::string arguments() const {
    std::ifstream file(program_.string() + ".arguments");
    std::string line;
    std::getline(file, line);
    return line;
  }

 private:
  std::filesystem::path program_;
  std::string path_;
};

}  // namespace tessera::test
