// SPDX-License-Identifier: Apache-2.0
// `tessera import`: a Hugging Face directory becomes a Tessera file, all ranks reading and writing
// parts of each tensor, in pieces of bounded size.
#include <algorithm>
#include <chrono>
#include <memory>

#include "base/block_distribution.hpp"
#include "base/log.hpp"
#include "comm/agree.hpp"
#include "command.hpp"
#include "tessera/checkpoint/hdf5_store.hpp"
#include "tessera/checkpoint/hugging_face.hpp"
#include "tessera/checkpoint/key_report.hpp"
#include "tessera/model/config.hpp"
#include "tessera/model/parameter_units.hpp"

namespace tessera::apps {
namespace {

constexpr std::int64_t piece_elements_per_rank = 16 << 20;  // 64 MiB in f32

struct ImportOptions {
  std::string directory;
  std::string output;
  bool overwrite = false;
  checkpoint::KeyOptions keys;
  GridOptions grid;
};

/// The parameters that the directory has; allowed ones may be missing.
std::vector<Parameter> present_parameters(const checkpoint::Source& source,
                                          const ImportOptions& options) {
  const model::ModelConfig config =
      model::parse_config(source.config_json(), source.path().string());
  log_info("{}", model::describe(config));
  std::vector<Parameter> parameters = model::all_parameters(model::parameter_units(config));
  checkpoint::require_keys(source, parameters, options.keys);
  std::erase_if(parameters, [&](const Parameter& p) { return source.find(p.name) == nullptr; });
  return parameters;
}

std::vector<checkpoint::DatasetSpec> dataset_specs(const checkpoint::Source& source,
                                                   const std::vector<Parameter>& parameters) {
  std::vector<checkpoint::DatasetSpec> specs;
  for (const Parameter& parameter : parameters) {
    specs.push_back({"parameters", &parameter, source.find(parameter.name)->dtype});
  }
  return specs;
}

/// Reads and writes one parameter, as many of its rows (experts) at a time as the ranks have room
/// for; at least one row, so a rank holds at most max(64 MiB, one row / ranks) of f32. collective.
checkpoint::LoadReport copy_parameter(const comm::ProcessGrid& grid, checkpoint::Source& source,
                                      checkpoint::Hdf5Writer& writer, const Parameter& parameter) {
  const int num_ranks = grid.world().size(), rank = grid.world().rank();
  const std::int64_t num_rows = parameter.shape[0],
                     row = parameter.size() / std::max<std::int64_t>(num_rows, 1);
  const std::int64_t rows_per_piece = std::max<std::int64_t>(
      1, piece_elements_per_rank * num_ranks / std::max<std::int64_t>(row, 1));
  checkpoint::LoadReport report;
  std::vector<float> shard;
  for (std::int64_t first = 0; first < num_rows; first += rows_per_piece) {
    const std::int64_t count = std::min(rows_per_piece, num_rows - first) * row;
    const BlockDistribution share{count, num_ranks};
    std::vector<Slice> slices;
    if (share.count(rank) > 0) {
      slices.push_back(
          {&parameter, first * row + share.begin(rank), first * row + share.end(rank), 0});
    }
    shard.resize(static_cast<std::size_t>(share.count(rank)));
    const std::span<const Parameter> parameters(&parameter, 1);
    report += source.load(grid, parameters, slices, shard, {});
    writer.write("parameters", parameters, slices, shard);
  }
  return report;
}

checkpoint::LoadReport copy_all(const comm::ProcessGrid& grid, checkpoint::Source& source,
                                checkpoint::Hdf5Writer& writer,
                                const std::vector<Parameter>& parameters) {
  std::int64_t total = 0, done = 0, tenths_told = 0;
  for (const Parameter& parameter : parameters) total += source.find(parameter.name)->bytes();
  checkpoint::LoadReport report;
  for (const Parameter& parameter : parameters) {
    report += copy_parameter(grid, source, writer, parameter);
    done += source.find(parameter.name)->bytes();
    const std::int64_t tenths = 10 * done / std::max<std::int64_t>(total, 1);
    if (tenths > tenths_told) {
      log_info("{:>3} %  {} of {}", 10 * tenths, format_bytes(static_cast<double>(done)),
               format_bytes(static_cast<double>(total)));
    }
    tenths_told = std::max(tenths_told, tenths);
  }
  return report;
}

void print_report(const comm::Communicator& world, const ImportOptions& options,
                  const checkpoint::LoadReport& report, std::int64_t written_bytes,
                  double seconds) {
  std::vector<std::int64_t> sums{report.read_bytes, report.exchanged_bytes, written_bytes};
  world.all_reduce("import.bytes", std::span<std::int64_t>(sums), comm::ReduceOp::sum);
  if (world.rank() != 0) return;
  const auto text = [&](std::size_t i) { return format_bytes(static_cast<double>(sums[i])); };
  fmt::print("{}: read {}, exchanged {} between ranks, wrote {} in {:.1f} s ({}/s)\n",
             options.output, text(0), text(1), text(2), seconds,
             format_bytes(static_cast<double>(sums[0]) / std::max(seconds, 1e-9)));
}

void require_output(const comm::Communicator& world, const ImportOptions& options) {
  comm::agreed(world, "look at the output", [&] {
    if (world.rank() == 0 && !options.overwrite && std::filesystem::exists(options.output)) {
      fail(ErrorKind::usage, "{} exists; --overwrite replaces it", options.output);
    }
  });
}

int run(const ImportOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const comm::ProcessGrid grid = make_grid(options.grid);
  const comm::Communicator& world = grid.world();
  require_output(world, options);
  const auto source = checkpoint::HuggingFaceSource::open(world, options.directory);
  const std::vector<Parameter> parameters = present_parameters(*source, options);
  checkpoint::Hdf5Writer writer(world, options.output, dataset_specs(*source, parameters), {},
                                source->files());
  const checkpoint::LoadReport report = copy_all(grid, *source, writer, parameters);
  writer.commit();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  print_report(world, options, report, writer.written_bytes(), elapsed.count());
  return 0;
}

}  // namespace

Command add_import(CLI::App& program) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App* app = add_command(
      program, "import", "Turn a Hugging Face checkpoint into a Tessera file, in parallel.",
      "  tessera import gpt-oss-20b/ gpt-oss-20b.h5\n"
      "  mpirun -n 4 tessera import gpt-oss-20b/ gpt-oss-20b.h5 --overwrite\n"
      "Tensors keep their element types. The file appears when all of it is on disk.");
  app->add_option("directory", options->directory,
                  "directory with config.json and safetensors files")
      ->required()
      ->type_name("HFDIR");
  app->add_option("output", options->output, "Tessera file to be")->required()->type_name("OUT.h5");
  app->add_flag("--overwrite", options->overwrite, "replace an existing file");
  add_key_options(*app, options->keys);
  add_wait_options(*app, options->grid);
  return {app, [options] { return run(*options); }};
}

}  // namespace tessera::apps
