// SPDX-License-Identifier: Apache-2.0
// `tessera import`: a Hugging Face directory becomes a Tessera file, all ranks reading and writing
// parts of each tensor, in portions of bounded size.
#include <chrono>
#include <memory>

#include "base/seconds_since.hpp"
#include "comm/agree.hpp"
#include "command.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"
#include "whole_model.hpp"

namespace tessera::apps {
namespace {

struct ImportOptions {
  std::string directory;
  std::string output;
  bool overwrite = false;
  bool dry_run = false;
  bool no_verify = false;
  checkpoint::KeyOptions keys;
  GridOptions grid;
};

void require_output(const comm::Communicator& world, const ImportOptions& options) {
  if (options.output.empty()) fail(ErrorKind::usage, "the file to be has an empty name");
  comm::agreed(world, "look at the output", [&] {
    if (world.rank() == 0 && !options.overwrite && std::filesystem::exists(options.output)) {
      fail(ErrorKind::usage, "{} exists; --overwrite replaces it", options.output);
    }
  });
}

std::string would_write(const WholeModel& whole) {
  require_directory(whole);
  std::int64_t bytes = 0;
  for (const checkpoint::DatasetSpec& spec : dataset_specs(whole)) {
    bytes += spec.parameter->size() * static_cast<std::int64_t>(size_of(spec.dtype));
    if (spec.origin.mxfp4) bytes += spec.parameter->size() / checkpoint::mxfp4_block_elements;
  }
  return fmt::format("{}, one file", format_bytes(static_cast<double>(bytes)));
}

int run(const ImportOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const comm::ProcessGrid grid = make_grid(options.grid);
  const comm::Communicator& world = grid.world();
  if (options.dry_run) return print_dry_run(world, options.directory, options.keys, would_write);
  require_output(world, options);
  const WholeModel whole = open_whole_model(world, options.directory, options.keys);
  require_directory(whole);
  checkpoint::Hdf5Writer writer(world, options.output, dataset_specs(whole), {}, whole.model.files);
  const checkpoint::CopyReport report = copy_model(
      grid, whole,
      [&](const checkpoint::Portion& portion) {
        writer.write("parameters", portion.parameters, portion.slices, portion.shard);
        writer.write_scales(portion.parameters, portion.slices, portion.scales);
      },
      !options.no_verify, "importing");
  writer.commit(options.no_verify ? nullptr : &report.fingerprints);
  const double seconds = seconds_since(start);
  print_copied(world, options.output, report.load, writer.written_bytes(), seconds);
  return 0;
}

}  // namespace

Command add_import(CLI::App& program) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App* app = add_command(
      program, "import", "Turn a Hugging Face checkpoint into a Tessera file, in parallel.",
      "  tessera import gpt-oss-20b/ gpt-oss-20b.h5 --dry-run\n"
      "  tessera import gpt-oss-20b/ gpt-oss-20b.h5\n"
      "  mpirun -n 4 tessera import gpt-oss-20b/ gpt-oss-20b.h5 --overwrite\n"
      "Tensors keep their element types; MXFP4 and FP8 become bf16, the scales of MXFP4 are kept\n"
      "beside. config.json, tokenizer and chat template go along. The file appears when all of it\n"
      "is on disk and equals, by its fingerprints, what was read.");
  app->add_option("directory", options->directory,
                  "directory with config.json and safetensors files")
      ->required()
      ->type_name("HFDIR");
  app->add_option("output", options->output, "Tessera file to be")->required()->type_name("OUT.h5");
  app->add_flag("--overwrite", options->overwrite, "replace an existing file");
  add_copy_options(*app, options->dry_run, options->no_verify);
  add_key_options(*app, options->keys);
  add_wait_options(*app, options->grid);
  return {app, [options] { return run(*options); }};
}

}  // namespace tessera::apps
