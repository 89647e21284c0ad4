// SPDX-License-Identifier: Apache-2.0
// `tessera bench`: the machine, the kernels and the phases of a step, each held against the roof
// that binds it in the same run.
#include "bench.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/log.hpp"
#include "comm/agree.hpp"
#include "command.hpp"
#include "numeric_options.hpp"
#include "tessera/trainer/model_state.hpp"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

struct BenchOptions {
  std::string model;
  std::int64_t hidden = 1024;
  std::int64_t intermediate = 1024;
  std::int64_t num_experts = 16;
  std::int64_t top_k = 4;
  std::int64_t num_layers = 0;  ///< 0: 2, or all of MODEL
  std::int64_t vocab = 8192;
  std::int64_t num_heads = 16;
  std::int64_t num_kv_heads = 4;
  std::int64_t head_size = 64;
  std::int64_t sequence_length = 512;
  std::int64_t batch = 0;  ///< 0: one sequence per rank
  std::string dtype = "f32";
  std::string recompute = "none";
  int num_repeats = 5;
  std::vector<std::string> parts{"kernels", "step"};  ///< --only
  std::vector<std::int64_t> expert_tokens{32, 128, 512};
  fs::path json;
  bool only_files = false;
  GridOptions grid;
};

/// A gpt-oss model of the sizes that the options say.
std::string config_of(const BenchOptions& options) {
  const nlohmann::json config{{"model_type", "gpt_oss"},
                              {"hidden_size", options.hidden},
                              {"intermediate_size", options.intermediate},
                              {"num_local_experts", options.num_experts},
                              {"num_experts_per_tok", options.top_k},
                              {"num_hidden_layers", std::max<std::int64_t>(options.num_layers, 2)},
                              {"vocab_size", options.vocab},
                              {"num_attention_heads", options.num_heads},
                              {"num_key_value_heads", options.num_kv_heads},
                              {"head_dim", options.head_size},
                              {"pad_token_id", nullptr}};
  return config.dump();
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) fail(ErrorKind::file, "cannot read {}", path.string());
  return text.str();
}

/// The configuration alone: a directory need not have weights. collective over world.
model::ModelConfig read_config(const comm::Communicator& world, const BenchOptions& options) {
  if (options.model.empty()) return model::parse_config(config_of(options), "the options");
  const fs::path path(options.model);
  const fs::path file = path.extension() == ".json" ? path : path / "config.json";
  const std::string text = comm::agreed(world, "read the configuration", [&] {
    return fs::is_regular_file(file) ? read_text(file) : std::string();
  });
  const bool has_text = world.all_reduce_value<std::int32_t>("configuration", !text.empty(),
                                                             comm::ReduceOp::min) == 1;
  if (has_text) return model::parse_config(text, file.string());
  return trainer::describe_model(world, path, {}).config;
}

/// The first layers only: a kernel costs the same in each, and a large model need not fit.
void keep_layers(model::ModelConfig& config, std::int64_t num_layers) {
  if (num_layers == 0 || num_layers >= config.num_layers) return;
  config.num_layers = num_layers;
  config.layer_window.resize(static_cast<std::size_t>(num_layers));
  config.layer_has_experts.resize(static_cast<std::size_t>(num_layers));
}

/// Weights, gradients and moments of a step must fit into the nodes' memory.
void require_memory(const comm::ProcessGrid& grid, const model::ModelConfig& config) {
  const double node =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  const double each =
      grid.world().all_reduce_value("memory", node / grid.node().size(), comm::ReduceOp::min);
  const double needed = 16.0 * static_cast<double>(num_parameters(config)) / grid.world().size();
  if (needed <= each) return;
  fail(ErrorKind::memory,
       "a step of this model needs {} of states per rank and a rank's part of its node has {}; "
       "time fewer layers (--layers) or use more nodes",
       format_bytes(needed), format_bytes(each));
}

/// The largest file of MODEL's weights, or nothing.
fs::path weights_file(const BenchOptions& options) {
  std::error_code ignored;
  fs::path best;
  if (fs::is_regular_file(options.model, ignored)) {
    return fs::path(options.model).extension() == ".json" ? fs::path() : fs::path(options.model);
  }
  std::uintmax_t size = 0;
  for (fs::directory_iterator it(options.model, ignored), end; it != end; it.increment(ignored)) {
    std::error_code error;
    const std::uintmax_t bytes = it->file_size(error);
    if (it->path().extension() != ".safetensors" || error || bytes <= size) continue;
    size = bytes;
    best = it->path();
  }
  return best;
}

/// A directory for temporary files that ranks do not share is no reason to stop.
void add_file_rows(const comm::Communicator& world, const BenchOptions& options,
                   std::vector<MachineRow>& rows) {
  const std::string file = world.broadcast_string("file", weights_file(options).string(), 0);
  try {
    for (MachineRow& row : study::measure_file(world, file)) rows.push_back(std::move(row));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::file) throw;
    log_warning("the rate of reading files is left out: {}", error.what());
  }
}

void print_once(const comm::Communicator& world, const std::string& text) {
  if (world.rank() != 0) return;
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

void write_json(const comm::Communicator& world, const fs::path& path, const std::string& text) {
  comm::agreed(world, "write the report", [&] {
    if (world.rank() != 0 || path.empty()) return;
    std::ofstream file(path, std::ios::trunc);
    file << text;
    file.close();
    if (!file) fail(ErrorKind::file, "cannot write {}", path.string());
  });
}

/// Loading and saving alone.
int run_files(const comm::ProcessGrid& grid, const BenchOptions& options) {
  if (options.model.empty()) fail(ErrorKind::usage, "--files needs MODEL, with its weights");
  const std::vector<MachineRow> rows = measure_checkpoint(grid, options.model, options.num_repeats);
  print_once(grid.world(), grid.describe() + '\n' + machine_table(rows));
  write_json(grid.world(), options.json,
             bench_json(grid.describe(), {}, grid.world().size(), {rows, {}, {}, {}}));
  return 0;
}

/// The machine and the parts that the options name, each printed when it is done.
BenchReport measure(const comm::ProcessGrid& grid, const BenchOptions& options,
                    const BenchShape& shape) {
  const comm::Communicator& world = grid.world();
  const auto has = [&](const char* part) {
    return std::find(options.parts.begin(), options.parts.end(), part) != options.parts.end();
  };
  BenchReport report;
  MachineReport machine = study::measure_machine(world, options.num_repeats);
  const Roofs roofs = machine.roofs;
  report.machine = std::move(machine.rows);
  if (has("step")) add_file_rows(world, options, report.machine);
  print_once(world, machine_table(report.machine));
  if (has("kernels")) {
    report.kernels = measure_kernels(grid, shape, roofs);
    print_once(world, kernel_table("kernel", report.kernels));
  }
  if (has("experts")) {
    report.experts = measure_experts(grid, shape, roofs, options.expert_tokens);
    print_once(world, expert_table(report.experts));
  }
  if (has("step")) {
    report.step = measure_step(grid, shape, roofs);
    print_once(world, kernel_table("phase of a step", report.step.rows));
    print_once(world, trainer::traffic_table(report.step.traffic));
  }
  print_once(
      world,
      "min, mean, max: over ranks. Roofs: product = best square of the same type, memory = "
      "triad of all\nranks at once, message = pairs of ranks; the one shown needs longest for "
      "the work. of regs: share of the\narithmetic units' own rate. More than 100% of memory: "
      "the arrays stay in caches.");
  return report;
}

int run(const BenchOptions& options) {
  const comm::ProcessGrid grid = make_grid(options.grid);
  if (options.only_files) return run_files(grid, options);
  const comm::Communicator& world = grid.world();
  BenchShape shape;
  shape.dtype = parse_dtype(options.dtype);
  shape.recompute = model::parse_recompute(options.recompute);
  shape.config = read_config(world, options);
  keep_layers(shape.config, options.num_layers);
  shape.batch = options.batch > 0 ? options.batch : world.size();
  shape.length = options.sequence_length;
  shape.num_repeats = options.num_repeats;
  if (shape.batch < world.size()) {
    fail(ErrorKind::usage, "--batch {} is less than the {} ranks; each needs a sequence",
         shape.batch, world.size());
  }
  require_memory(grid, shape.config);
  const std::string description = fmt::format(
      "{}\n{}; {}, {} sequences of {}, median of {} repeats", model::describe(shape.config),
      grid.describe(), options.dtype, shape.batch, shape.length, shape.num_repeats);
  print_once(world, description + '\n');

  const BenchReport report = measure(grid, options, shape);
  write_json(world, options.json, bench_json(description, shape, world.size(), report));
  return 0;
}

void add_shape_options(CLI::App& app, BenchOptions& options) {
  const auto add = [&](const char* name, std::int64_t& value, const char* text) {
    app.add_option(name, value, text)->capture_default_str()->check(positive());
  };
  add("--hidden", options.hidden, "hidden size, without MODEL");
  add("--intermediate", options.intermediate, "of one expert, without MODEL");
  add("--experts", options.num_experts, "of a layer, without MODEL");
  add("--top-k", options.top_k, "experts of a token, without MODEL");
  add("--vocab", options.vocab, "size of the vocabulary, without MODEL");
  add("--heads", options.num_heads, "attention heads, without MODEL");
  add("--kv-heads", options.num_kv_heads, "key-value heads, without MODEL");
  add("--head-size", options.head_size, "of one head, without MODEL");
  add("--sequence-length", options.sequence_length, "tokens of a sequence");
  app.add_option("--layers", options.num_layers, "the first layers (default: 2, or all of MODEL)")
      ->check(positive());
  app.add_option("--batch", options.batch,
                 "sequences of a step, over all ranks (default: one per rank)")
      ->check(positive());
}

}  // namespace

Command add_bench(CLI::App& program) {
  const auto options = std::make_shared<BenchOptions>();
  CLI::App* app = add_command(
      program, "bench",
      "Time the machine, the kernels and a training step, each against the roof that binds it.",
      "  tessera bench\n"
      "  mpirun -n 2 tessera bench --expert 2 --dtype bf16 --sequence-length 1024\n"
      "  tessera bench --only experts --expert-tokens 32,128,512 --dtype bf16\n"
      "  mpirun -n 8 tessera bench gpt-oss-20b/ --layers 1 --expert 8 --dtype bf16 --json "
      "out.json\n"
      "Of MODEL the configuration is read, and its largest file for the rate of reading; weights "
      "and tokens\n"
      "are random. Bind ranks to cores, and let nothing else run.");
  app->add_option("model", options->model,
                  "Hugging Face directory, config.json or Tessera file (default: gpt-oss of the "
                  "sizes below)")
      ->type_name("MODEL");
  add_shape_options(*app, *options);
  app->add_option("--dtype", options->dtype, "arithmetic: f32 or bf16")->capture_default_str();
  app->add_option("--recompute", options->recompute,
                  "in backward instead of keeping: none, attention or layer")
      ->capture_default_str();
  app->add_option("--repeat", options->num_repeats,
                  "times that each kernel is timed, after one more")
      ->capture_default_str()
      ->check(positive());
  app->add_flag("--files", options->only_files,
                "time loading and saving MODEL alone, against pread and write of the same bytes");
  app->add_option("--only", options->parts,
                  "beside the machine: kernels, experts (with --expert-tokens), step")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::IsMember({"kernels", "experts", "step"}));
  app->add_option("--expert-tokens", options->expert_tokens, "rows of each expert in experts")
      ->delimiter(',')
      ->capture_default_str()
      ->check(positive());
  app->add_option("--json", options->json, "write the numbers to this file too")->type_name("FILE");
  add_grid_options(*app, options->grid);
  return {app, [options] { return run(*options); }};
}

}  // namespace tessera::apps
