// SPDX-License-Identifier: Apache-2.0
// `tessera export`: a Tessera file (or a Hugging Face directory) becomes a Hugging Face directory,
// all ranks writing their byte ranges of the same files.
#include <array>
#include <chrono>
#include <memory>

#include "base/seconds_since.hpp"
#include "command.hpp"
#include "tessera/checkpoint/hugging_face_writer.hpp"
#include "whole_model.hpp"

namespace tessera::apps {
namespace {

struct ExportOptions {
  std::string model;
  std::string directory;
  std::string experts;
  std::string max_shard_size = "5GB";
  bool dry_run = false;
  bool no_verify = false;
  checkpoint::ExportOptions to;
  checkpoint::KeyOptions keys;
  GridOptions grid;
};

/// "5GB", "200MB": decimal units, as transformers takes them; or a number of bytes.
std::int64_t parse_size(const std::string& text) {
  constexpr std::array units = {std::pair{"TB", 1e12}, std::pair{"GB", 1e9}, std::pair{"MB", 1e6},
                                std::pair{"KB", 1e3}, std::pair{"", 1.0}};
  for (const auto& [unit, bytes] : units) {
    if (!text.ends_with(unit)) continue;
    double number = 0.0;
    const std::string digits = text.substr(0, text.size() - std::string(unit).size());
    if (!CLI::detail::lexical_cast(digits, number)) break;
    const double size = number * bytes;
    if (size >= 1.0 && size <= 1e18) return static_cast<std::int64_t>(size);
  }
  fail(ErrorKind::usage, "--max-shard-size {} is no size; write 5GB, 200MB or a number of bytes",
       text);
}

checkpoint::Origins origins_of(const WholeModel& whole) {
  return export_origins(whole.model, whole.model.training.step);
}

std::string would_write(const WholeModel& whole, const checkpoint::ExportOptions& to) {
  const checkpoint::ExportPlan plan = plan_export(whole.named, origins_of(whole), to);
  return fmt::format("{}, {} tensors in {} safetensors file{}",
                     format_bytes(static_cast<double>(plan.total_bytes())), plan.tensors.size(),
                     plan.files.size(), plan.files.size() == 1 ? "" : "s");
}

int run(ExportOptions options) {
  const auto start = std::chrono::steady_clock::now();
  options.to.experts = parse_expert_format(options.experts);
  options.to.max_shard_bytes = parse_size(options.max_shard_size);
  const comm::ProcessGrid grid = make_grid(options.grid);
  const comm::Communicator& world = grid.world();
  if (options.dry_run) {
    return print_dry_run(world, options.model, options.keys,
                         [&](const WholeModel& whole) { return would_write(whole, options.to); });
  }
  const WholeModel whole = open_whole_model(world, options.model, options.keys);
  const checkpoint::Origins origins = origins_of(whole);
  checkpoint::HuggingFaceWriter writer(
      world, options.directory, whole.named, origins,
      exported_files(whole.model, whole.named, origins, options.to), options.to);
  const checkpoint::CopyReport report = copy_model(
      grid, whole,
      [&](const checkpoint::Portion& portion) {
        writer.write(portion.slices, portion.shard, portion.scales);
      },
      !options.no_verify, "exporting");
  writer.commit();
  const double seconds = seconds_since(start);
  print_copied(world, options.directory, report.load, writer.written_bytes(), seconds);
  return 0;
}

}  // namespace

Command add_export(CLI::App& program) {
  const auto options = std::make_shared<ExportOptions>();
  CLI::App* app = add_command(
      program, "export", "Turn a checkpoint into a Hugging Face directory, in parallel.",
      "  tessera export run/step-00000100.h5 my-model/ --dry-run\n"
      "  mpirun -n 4 tessera export run/step-00000100.h5 my-model/\n"
      "  tessera export run/step-00000100.h5 my-model-mxfp4/ --experts mxfp4 --overwrite\n"
      "  tessera export gpt-oss-20b/original/ gpt-oss-20b-bf16/ --experts bf16\n"
      "Tensors get the element types that they were imported with, but MXFP4 experts that have "
      "been\n"
      "trained become bf16 unless --experts mxfp4 quantises them; files that came with the model "
      "are\n"
      "restored. The directory appears when all of it is on disk and what was read equals the\n"
      "fingerprints that a Tessera file states.");
  app->add_option("model", options->model,
                  "Tessera file, Hugging Face directory, or a run's directory")
      ->required()
      ->type_name("MODEL");
  app->add_option("directory", options->directory, "directory to be")
      ->required()
      ->type_name("HFDIR");
  app->add_option("--experts", options->experts,
                  "bf16: experts as plain bf16; mxfp4: quantised (gpt-oss); default: as "
                  "imported,\ntrained MXFP4 as bf16")
      ->type_name("FORMAT");
  app->add_option("--max-shard-size", options->max_shard_size, "of one safetensors file")
      ->capture_default_str()
      ->type_name("SIZE");
  app->add_flag("--overwrite", options->to.overwrite, "replace an existing directory");
  add_copy_options(*app, options->dry_run, options->no_verify);
  add_key_options(*app, options->keys);
  add_wait_options(*app, options->grid);
  return {app, [options] { return run(*options); }};
}

}  // namespace tessera::apps
