// SPDX-License-Identifier: Apache-2.0
// Catch2 under MPI: all ranks run the same tests in the order of their declaration with the same
// seed; rank 0 reports, the others print only what failed on them; the job fails if any rank
// failed.
#define CATCH_CONFIG_RUNNER
#include <mpi.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "base/error.hpp"
#include "comm/environment.hpp"
#include "comm/watchdog.hpp"

namespace {

constexpr int kUsageError = 2;
constexpr unsigned kSeed = 20240817;

int job_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

// What Catch2 2 and 3 name differently. The output goes through mpiexec, hence no colours.
#if CATCH_VERSION_MAJOR >= 3
using AssertionEnded = void;
void set_order_and_output(Catch::ConfigData& config) {
  config.runOrder = Catch::TestRunOrder::Declared;
  config.defaultColourMode = Catch::ColourMode::None;
  if (job_rank() != 0) config.defaultOutputFilename = "/dev/null";
}
#else
using AssertionEnded = bool;
void set_order_and_output(Catch::ConfigData& config) {
  config.runOrder = Catch::RunTests::InDeclarationOrder;
  config.useColour = Catch::UseColour::No;
  if (job_rank() != 0) config.outputFilename = "/dev/null";
}
#endif

std::size_t num_tests_run = 0;

// Failures of ranks other than 0, printed when they happen: a hang later would swallow them.
class FailureListener : public Catch::TestEventListenerBase {
 public:
  using Catch::TestEventListenerBase::TestEventListenerBase;

  void testCaseStarting(const Catch::TestCaseInfo& info) override { test_name_ = info.name; }

  AssertionEnded assertionEnded(const Catch::AssertionStats& stats) override {
    const Catch::AssertionResult& result = stats.assertionResult;
    if (result.isOk() || job_rank() == 0) return AssertionEnded(true);
    std::ostringstream text;
    text << "[rank " << job_rank() << "] " << result.getSourceInfo() << ": FAILED in '"
         << test_name_ << "'\n";
    if (result.hasExpression()) text << "  " << result.getExpressionInMacro() << '\n';
    if (result.hasExpression()) text << "  with: " << result.getExpandedExpression() << '\n';
    if (result.hasMessage()) text << "  " << result.getMessage() << '\n';
    for (const Catch::MessageInfo& info : stats.infoMessages) text << "  " << info.message << '\n';
    std::fputs(text.str().c_str(), stderr);
    return AssertionEnded(true);
  }

  void testRunEnded(const Catch::TestRunStats& stats) override {
    num_tests_run = stats.totals.testCases.total();
  }

 private:
  std::string test_name_;
};
CATCH_REGISTER_LISTENER(FailureListener)

int complain(const char* text) {
  if (job_rank() == 0) std::fprintf(stderr, "%s\n", text);
  return kUsageError;
}

int run_tests(int argc, char** argv) {
  Catch::Session session;
  if (const int code = session.applyCommandLine(argc, argv); code != 0) return code;
  Catch::ConfigData& config = session.configData();
  if (config.showHelp || config.listTests || config.listTags || config.listReporters) {
    return job_rank() == 0 ? session.run() : 0;
  }
  if (config.abortAfter > 0) {
    return complain(
        "-a, -x: one rank would stop while the others go on and wait for it; leave it out");
  }
  config.rngSeed = kSeed;
  set_order_and_output(config);
  const int num_failed = session.run();
  if (num_tests_run == 0) return complain("no test was run: the filter matches none");
  return std::min(num_failed, 100);
}

int worst_of_all_ranks(int result) {
  // Twice the deadline: a rank that gives up a wait now must have the time to say so.
  const tessera::comm::Phase phase("end of the tests", 2 * tessera::comm::default_deadline());
  MPI_Allreduce(MPI_IN_PLACE, &result, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  setenv("TESSERA_DEADLINE_S", "20",
         0);  // below the time-out of the test runner, which tells nothing
  try {
    const tessera::comm::Environment environment(argc, argv);
    return worst_of_all_ranks(run_tests(argc, argv));
  } catch (const tessera::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    tessera::comm::abort_job(tessera::exit_code(error.kind()));
  }
}
