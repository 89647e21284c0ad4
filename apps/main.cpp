// SPDX-License-Identifier: Apache-2.0
// The `tessera` program: parses the command line, starts MPI, runs one subcommand, and turns errors
// into one message and an exit code. Help and version come without MPI.
#include <mpi.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/out_of_memory.hpp"
#include "base/version.hpp"
#include "comm/agree.hpp"
#include "comm/environment.hpp"
#include "comm/watchdog.hpp"
#include "command.hpp"
#include "config_file.hpp"

namespace {

using namespace tessera;

constexpr const char* exit_codes =
    "Exit codes:\n"
    "  0 done                  4 out of memory or above a stated bound\n"
    "  1 internal error        5 ranks lost contact or disagreed\n"
    "  2 wrong usage           6 NaN or infinity\n"
    "  3 bad input or files    7 stopped by a signal or the time limit, state is saved\n"
    "\n`tessera SUBCOMMAND --help` shows options and examples.";

std::vector<apps::Command> add_commands(CLI::App& program) {
  program.set_version_flag("--version", "tessera " + version_string());
  program.footer(exit_codes);
  program.require_subcommand(1);
  apps::add_config_file(program);
  return {apps::add_import(program), apps::add_export(program), apps::add_train(program),
          apps::add_probe(program),  apps::add_plan(program),   apps::add_inspect(program),
          apps::add_doctor(program), apps::add_bench(program),  apps::add_calibrate(program),
          apps::add_verify(program), apps::add_ls(program),     apps::add_study(program)};
}

/// Parses; what is wrong comes back as an Error in `problem`. Returns true if help or version was
/// wanted.
bool parse(CLI::App& program, int argc, char** argv, std::exception_ptr& problem) {
  try {
    program.parse(argc, argv);
  } catch (const CLI::Success& wanted) {
    if (comm::launcher_rank() <= 0) program.exit(wanted);
    return true;
  } catch (const CLI::ParseError& error) {
    const auto chosen = program.get_subcommands();
    problem = std::make_exception_ptr(
        Error(ErrorKind::usage,
              fmt::format("{}\nRun `tessera {}--help` for options and examples.", error.what(),
                          chosen.empty() ? "" : chosen.front()->get_name() + " ")));
  }
  return false;
}

/// Null where the command line names none.
const apps::Command* find_chosen(const std::vector<apps::Command>& commands) {
  for (const apps::Command& command : commands) {
    if (command.app->parsed()) return &command;
  }
  return nullptr;
}

void print_error(const Error& error) {
  std::fprintf(stderr, "tessera: error: %s: %s\n", to_string(error.kind()), error.what());
}

/// Whether the ranks can still be expected to meet in MPI_Finalize.
bool is_shared(const Error& error) {
  return error.kind() != ErrorKind::communication && error.kind() != ErrorKind::internal;
}

/// MPI over TCP may write to a rank that is gone; this rank is then to call the roll and say who is
/// missing, and SIGPIPE would end it without a word. One process alone keeps it for `| head`.
void outlive_lost_ranks() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size > 1) std::signal(SIGPIPE, SIG_IGN);
}

/// Ordinarily all ranks parse alike; one may still fail alone, by a configuration file that it
/// cannot read.
void agree_on_usage(const std::exception_ptr& problem) {
  const comm::Communicator world(MPI_COMM_WORLD, "program");
  const std::int32_t has_failed = problem ? 1 : 0;
  const bool alike = world.all_reduce_value("command line", has_failed, comm::ReduceOp::min) == 1;
  if (alike) std::rethrow_exception(problem);
  comm::agree(world, "command line", problem);
}

/// Of an error that this rank has alone: the others may be anywhere, so there is no orderly end.
[[noreturn]] void end_job(int code, const char* message) {
  log_rank_message(LogLevel::error, message);
  comm::abort_job(code);
}

bool speaks_for_all() {
  int is_running = 0, rank = 0;
  MPI_Initialized(&is_running);
  if (is_running == 0) return comm::launcher_rank() <= 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank == 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App program("Expert parallelism and ZeRO-3 together, on MPI.", "tessera");
  const std::vector<apps::Command> commands = add_commands(program);
  std::exception_ptr usage_error;
  if (parse(program, argc, argv, usage_error)) return 0;

  int code = 0;
  std::optional<comm::Environment> environment;
  try {
    // A process without a launcher has nobody to wait for, and needs no MPI to say what is wrong.
    if (usage_error && comm::launcher_rank() < 0) std::rethrow_exception(usage_error);
    const apps::Command* chosen = find_chosen(commands);
    comm::EnvironmentOptions options;
    options.may_lack_device = chosen == nullptr || usage_error || !chosen->needs_device();
    if (chosen != nullptr && !usage_error) chosen->prepare();
    environment.emplace(argc, argv, options);
    outlive_lost_ranks();
    agree_on_usage(usage_error);
    if (chosen == nullptr) fail(ErrorKind::internal, "no subcommand was run");
    code = chosen->run();
  } catch (const OutOfMemory& error) {
    end_job(exit_code(ErrorKind::memory), error.what());
  } catch (const Error& error) {
    code = exit_code(error.kind());
    if (!is_shared(error) && environment) end_job(code, error.what());
    if (speaks_for_all()) print_error(error);
  } catch (const std::bad_alloc&) {
    end_job(exit_code(ErrorKind::memory), "out of memory");
  } catch (const std::exception& error) {
    end_job(exit_code(ErrorKind::internal), error.what());
  }
  const comm::Phase finalise("finalise", std::chrono::minutes(1));
  environment.reset();
  return code;
}
