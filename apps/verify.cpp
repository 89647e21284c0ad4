// SPDX-License-Identifier: Apache-2.0
// `tessera verify`: does a checkpoint still hold what was written, and do two hold the same values?
#include "tessera/checkpoint/verify.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/progress.hpp"
#include "base/seconds_since.hpp"
#include "command.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"
#include "whole_model.hpp"

namespace tessera::apps {
namespace {

using checkpoint::VerifyReport;
constexpr std::size_t max_lines = 60;

struct VerifyOptions {
  std::string checkpoint;
  std::string other;  ///< empty: the checkpoint alone
  bool is_rounded = false;
  bool as_json = false;
  checkpoint::KeyOptions keys;
  GridOptions grid;
};

checkpoint::Progress tell_progress() {
  return [bar = std::shared_ptr<ProgressBar>()](std::int64_t done, std::int64_t total) mutable {
    if (!bar) bar = std::make_shared<ProgressBar>("verifying", total, total);
    bar->at(done);
  };
}

VerifyReport verify_one(const comm::ProcessGrid& grid, const VerifyOptions& options) {
  const auto source =
      checkpoint::Source::open(grid.world(), trainer::model_path(grid.world(), options.checkpoint));
  if (auto* file = dynamic_cast<checkpoint::Hdf5Source*>(source.get())) {
    return checkpoint::verify_file(grid, *file, tell_progress());
  }
  const WholeModel whole = open_whole_model(grid.world(), options.checkpoint, options.keys);
  return checkpoint::hash_source(grid, whole.source(), whole.stored, tell_progress());
}

VerifyReport compare_two(const comm::ProcessGrid& grid, const VerifyOptions& options) {
  const WholeModel a = open_whole_model(grid.world(), options.checkpoint, options.keys);
  const WholeModel b = open_whole_model(grid.world(), options.other, options.keys);
  return checkpoint::compare_sources(
      grid, a.source(), b.source(), a.stored, b.stored,
      options.is_rounded ? checkpoint::Compare::rounded : checkpoint::Compare::exactly,
      tell_progress());
}

std::string verdict(const VerifyOptions& options, const VerifyReport& report) {
  if (!report.differences.empty()) {
    const std::size_t count = report.differences.size();
    return fmt::format("{} difference{}", count, count == 1 ? "" : "s");
  }
  if (!options.other.empty()) {
    return fmt::format("equal to {}{}", options.other,
                       options.is_rounded ? " after rounding to its element types" : "");
  }
  if (report.has_stored_fingerprints) return "as it was written";
  return "nothing to compare with: it states no fingerprints";
}

void print_text(const VerifyOptions& options, const VerifyReport& report, double seconds) {
  for (std::size_t i = 0; i < report.differences.size(); ++i) {
    if (i == max_lines) {
      fmt::print("... and {} more lines\n", report.differences.size() - i);
      break;
    }
    fmt::print("{}\n", report.differences[i]);
  }
  if (!report.differences.empty() && !options.other.empty() && !options.is_rounded) {
    fmt::print("(--rounded compares a trained f32 file with its export in narrower types)\n");
  }
  const double bytes = static_cast<double>(report.read_bytes);
  fmt::print("fingerprint of the parameters: {}\n", to_string(report.parameters));
  fmt::print("{}: {}; {} tensors, {} fingerprints, {} read in {:.2f} s ({:.2f} GB/s)\n",
             options.checkpoint, verdict(options, report), report.num_tensors,
             report.num_fingerprints, format_bytes(bytes), seconds,
             bytes / 1e9 / std::max(seconds, 1e-9));
}

void print_json(const VerifyOptions& options, const VerifyReport& report, double seconds) {
  nlohmann::ordered_json json{{"checkpoint", options.checkpoint}};
  if (!options.other.empty()) json["other"] = options.other;
  json["equal"] = report.differences.empty();
  json["states_fingerprints"] = report.has_stored_fingerprints;
  json["fingerprint"] = to_string(report.parameters);
  json["tensors"] = report.num_tensors;
  json["fingerprints"] = report.num_fingerprints;
  json["read_bytes"] = report.read_bytes;
  json["seconds"] = seconds;
  json["differences"] = report.differences;
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

int run(const VerifyOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const comm::ProcessGrid grid = make_grid(options.grid);
  const VerifyReport report =
      options.other.empty() ? verify_one(grid, options) : compare_two(grid, options);
  const double seconds = seconds_since(start);
  if (grid.world().rank() == 0) {
    options.as_json ? print_json(options, report, seconds) : print_text(options, report, seconds);
    std::fflush(stdout);
  }
  return report.differences.empty() ? 0 : exit_code(ErrorKind::format);
}

}  // namespace

Command add_verify(CLI::App& program) {
  const auto options = std::make_shared<VerifyOptions>();
  CLI::App* app = add_command(
      program, "verify", "Prove that a checkpoint is whole, or that two hold the same values.",
      "  tessera verify run/step-00000100.h5\n"
      "  mpirun -n 4 tessera verify gpt-oss-20b.h5 gpt-oss-20b/\n"
      "  tessera verify run/step-00000100.h5 my-model/ --rounded\n"
      "A Tessera file is hashed again (parameters, optimizer states, scales, embedded files) and\n"
      "compared with the fingerprints that it states. Of a Hugging Face directory keys are "
      "checked\n"
      "and the fingerprint is printed. Two checkpoints are compared value by value: MXFP4 and FP8\n"
      "as the numbers that they stand for. Exit code 3 if something differs.");
  app->add_option("checkpoint", options->checkpoint,
                  "Tessera file, Hugging Face directory, or a run's directory")
      ->required()
      ->type_name("CHECKPOINT");
  CLI::Option* other =
      app->add_option("other", options->other, "what to compare its parameters with")
          ->type_name("OTHER");
  app->add_flag(
         "--rounded", options->is_rounded,
         "round CHECKPOINT's values to the element types of OTHER first: a trained f32 file\n"
         "against its bf16 export")
      ->needs(other);
  app->add_flag("--json", options->as_json, "print JSON");
  add_key_options(*app, options->keys);
  add_wait_options(*app, options->grid);
  return {app, [options] { return run(*options); }};
}

}  // namespace tessera::apps
