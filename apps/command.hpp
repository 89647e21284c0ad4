// SPDX-License-Identifier: Apache-2.0
// What a subcommand of the program is, and the options that all of them share.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "base/bytes.hpp"
#include "comm/process_grid.hpp"
#include "tessera/checkpoint/export_plan.hpp"
#include "tessera/checkpoint/key_report.hpp"

namespace tessera::apps {

/// One subcommand. Each has a file <name>.cpp with its one function `Command add_<name>(CLI::App&
/// program)`, declared below and called in main.cpp.
struct Command {
  CLI::App* app = nullptr;
  /// Does the work after MPI has started; the exit code. collective over MPI_COMM_WORLD. An Error
  /// that it throws must be the same on all ranks (agreed), those of kind communication and
  /// internal excepted.
  std::function<int()> run;
  /// If not, it also runs where a build for GPUs finds none. Asked after the command line is
  /// parsed.
  std::function<bool()> needs_device = [] { return true; };
  /// Comes before MPI starts, e.g. to take signals from then on. local.
  std::function<void()> prepare = [] {};
};

Command add_bench(CLI::App& program);
Command add_calibrate(CLI::App& program);
Command add_doctor(CLI::App& program);
Command add_export(CLI::App& program);
Command add_import(CLI::App& program);
Command add_inspect(CLI::App& program);
Command add_ls(CLI::App& program);
Command add_plan(CLI::App& program);
Command add_probe(CLI::App& program);
Command add_study(CLI::App& program);
Command add_train(CLI::App& program);
Command add_verify(CLI::App& program);

/// A subcommand with its one-line description, and examples that `--help` shows below the options.
CLI::App* add_command(CLI::App& program, const std::string& name, const std::string& description,
                      const std::string& examples);

/// Refuses what is no finite number above 0.
CLI::Validator positive();
/// Refuses what is no finite number of at least 0.
CLI::Validator non_negative();

/// How the ranks work together; the same options in every subcommand that has a grid.
struct GridOptions {
  int expert = 1;             ///< ranks that hold different experts
  double deadline_s = 600.0;  ///< of every single wait
  bool checked = false;       ///< compare each collective across ranks
};
/// --deadline and --checked.
void add_wait_options(CLI::App& app, GridOptions& options);
/// --expert and the wait options.
void add_grid_options(CLI::App& app, GridOptions& options);
/// --allow-missing and --allow-unexpected, for subcommands that read a whole model.
void add_key_options(CLI::App& app, checkpoint::KeyOptions& options);
/// --dry-run and --no-verify, of subcommands that copy a whole model.
void add_copy_options(CLI::App& app, bool& dry_run, bool& no_verify);
/// "bf16", "mxfp4" or nothing (as imported); throws Error::usage for any other name. local.
checkpoint::ExpertFormat parse_expert_format(const std::string& name);
/// Of the waits. local.
comm::CommunicatorOptions communicator_options(const GridOptions& options);
/// collective over parent; throws Error::usage on all its ranks alike.
comm::ProcessGrid make_grid(const GridOptions& options, MPI_Comm parent = MPI_COMM_WORLD);

}  // namespace tessera::apps
