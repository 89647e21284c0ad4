// SPDX-License-Identifier: Apache-2.0
#include "command.hpp"

#include <chrono>
#include <cmath>

namespace tessera::apps {
namespace {

/// Refuses text that is no finite number, or one that `allowed` is false for.
template <class Allowed>
CLI::Validator number_where(Allowed allowed, std::string complaint) {
  const auto check = [allowed, complaint = std::move(complaint)](std::string& text) {
    double value = 0.0;
    const bool is_number = CLI::detail::lexical_cast(text, value) && std::isfinite(value);
    return is_number && allowed(value) ? std::string() : fmt::format("'{}' {}", text, complaint);
  };
  return CLI::Validator(check, "");
}

// Waits are counted in whole milliseconds, and none at all would mean no deadline.
CLI::Validator wait_seconds() {
  return number_where([](double value) { return value >= 1e-3 && value <= 1e9; },
                      "is no number of seconds from 0.001 to 1e9");
}

}  // namespace

CLI::App* add_command(CLI::App& program, const std::string& name, const std::string& description,
                      const std::string& examples) {
  CLI::App* app = program.add_subcommand(name, description);
  app->fallthrough();  // so that --config may follow the subcommand
  app->footer("Examples:\n" + examples);
  return app;
}

CLI::Validator positive() {
  return number_where([](double value) { return value > 0.0; }, "is no number above 0");
}

CLI::Validator non_negative() {
  return number_where([](double value) { return value >= 0.0; }, "is no number of at least 0");
}

void add_grid_options(CLI::App& app, GridOptions& options) {
  app.add_option("--expert", options.expert,
                 "ranks that hold different experts; divides the number of ranks")
      ->check(positive())
      ->capture_default_str()
      ->type_name("E");
  add_wait_options(app, options);
}

void add_wait_options(CLI::App& app, GridOptions& options) {
  app.add_option("--deadline", options.deadline_s, "longest wait for another rank [s]")
      ->check(wait_seconds())
      ->capture_default_str()
      ->envname("TESSERA_DEADLINE_S")
      ->type_name("SECONDS");
  app.add_flag("--checked", options.checked,
               "compare each collective call across ranks before it is done (slow)");
}

void add_key_options(CLI::App& app, checkpoint::KeyOptions& options) {
  app.add_option(
         "--allow-missing", options.allow_missing,
         "tensor that the checkpoint may lack, and with =zeros, =ones or =normal how it begins;\n"
         "* matches any text; may be given several times")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("NAME");
  app.add_option("--allow-unexpected", options.allow_unexpected,
                 "tensor of the checkpoint that the model does not have; likewise")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("NAME");
}

void add_copy_options(CLI::App& app, bool& dry_run, bool& no_verify) {
  app.add_flag("--dry-run", dry_run,
               "show how the keys fit, and what would be read, needed and written; headers only");
  app.add_flag("--no-verify", no_verify, "do not hash and compare what is read and written");
}

checkpoint::ExpertFormat parse_expert_format(const std::string& name) {
  if (name.empty()) return checkpoint::ExpertFormat::as_imported;
  if (name == "bf16") return checkpoint::ExpertFormat::bf16;
  if (name == "mxfp4") return checkpoint::ExpertFormat::mxfp4;
  fail(ErrorKind::usage, "experts as '{}' are unknown; use bf16 or mxfp4", name);
}

comm::CommunicatorOptions communicator_options(const GridOptions& options) {
  comm::CommunicatorOptions communicator;
  communicator.deadline =
      std::chrono::milliseconds(static_cast<long long>(1000.0 * options.deadline_s));
  communicator.checked = options.checked;
  return communicator;
}

comm::ProcessGrid make_grid(const GridOptions& options, MPI_Comm parent) {
  return comm::ProcessGrid(parent, {.expert = options.expert}, communicator_options(options));
}

}  // namespace tessera::apps
