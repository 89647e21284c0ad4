// SPDX-License-Identifier: Apache-2.0
// tessera plan: how much memory a run will need, rank by rank and kind by kind, from config.json.
#include <mpi.h>

#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <tessera/study/describe_plan.hpp>

#include "base/error.hpp"
#include "comm/agree.hpp"
#include "command.hpp"
#include "numeric_options.hpp"
#include "tessera/checkpoint/source.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"

namespace tessera::apps {
namespace {

struct PlanOptions {
  std::string model;
  study::RunShape shape;
  std::string dtype = "f32", reduce_dtype = "f32", optimizer = "adamw", recompute = "none", memory;
  bool no_shared_memory = false;
  bool as_json = false;
};

/// "80GiB", "500 MiB", "96G" or bytes.
std::int64_t parse_memory(const std::string& text) {
  std::size_t length = 0;
  double value = 0.0;
  try {
    value = std::stod(text, &length);
  } catch (const std::exception&) {
    length = 0;
  }
  std::string unit = text.substr(length);
  unit.erase(0, unit.find_first_not_of(' '));
  const std::string known = "KMGT";
  const std::size_t power = unit.empty() ? 0 : known.find(unit[0]) + 1;
  const bool is_unit = unit.empty() || unit == "B" || unit.substr(1).empty() ||
                       unit.substr(1) == "iB" || unit.substr(1) == "B";
  if (length == 0 || !is_unit || !(value > 0.0) || (power == 0 && !unit.empty() && unit != "B")) {
    fail(ErrorKind::usage, "--memory {} is no size; write it as 80GiB, 512MiB or in bytes", text);
  }
  return static_cast<std::int64_t>(value * std::pow(1024.0, static_cast<double>(power)));
}

/// collective over world; errors are agreed.
model::ModelConfig read_config(const comm::Communicator& world, const std::string& path) {
  if (!path.ends_with(".json")) {
    const auto source = checkpoint::Source::open(world, trainer::model_path(world, path));
    return model::parse_config(source->config_json(), path);
  }
  return comm::agreed(world, "read the configuration", [&] {
    std::ifstream file(path);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (!file) fail(ErrorKind::file, "{} cannot be read", path);
    return model::parse_config(text, path);
  });
}

nlohmann::ordered_json to_json(const study::MemoryPlan& plan) {
  nlohmann::ordered_json json{{"ranks", plan.num_ranks},
                              {"first_rank", plan.first_rank},
                              {"parameters_owned", plan.num_parameters}};
  for (std::size_t i = 0; i < study::num_memory_kinds; ++i) {
    json["bytes"][std::string(to_string(static_cast<study::MemoryKind>(i)))] = plan.bytes[i];
  }
  json["node_bytes"] = {{"parameters", plan.node.parameters},
                        {"gradients", plan.node.gradients},
                        {"dispatch", plan.node.dispatch}};
  json["ranks_per_node"] = plan.ranks_per_node;
  json["rank_bytes"] = plan.rank_bytes();
  json["program_bytes"] = study::program_bytes;
  return json;
}

std::string describe_grids(const PlanOptions& options, const model::ModelConfig& config,
                           const study::RunShape& shape) {
  const std::vector<study::GridPlan> grids = plan_grids(config, shape);
  std::optional<std::int64_t> limit_bytes;
  if (!options.memory.empty()) limit_bytes = parse_memory(options.memory);
  if (!options.as_json) {
    return fmt::format("{}\n{} ranks, {} per node; batch {} x {}, {}, recompute {}\n{}",
                       model::describe(config), shape.num_ranks, shape.ranks_per_node, shape.batch,
                       shape.length, options.dtype, options.recompute,
                       describe(grids, limit_bytes));
  }
  nlohmann::ordered_json json;
  for (const study::GridPlan& grid : grids) {
    json["grids"].push_back({{"expert", grid.expert},
                             {"traffic_bytes", grid.traffic_bytes},
                             {"memory", to_json(grid.memory)}});
  }
  if (const auto best = best_grid(grids, limit_bytes)) json["best_expert"] = grids[*best].expert;
  return json.dump(2) + "\n";
}

std::string describe_ranks(const PlanOptions& options, const model::ModelConfig& config,
                           const study::RunShape& shape) {
  const std::vector<study::MemoryPlan> plans = plan_memory(config, shape);
  if (options.as_json) {
    nlohmann::ordered_json json;
    for (const study::MemoryPlan& plan : plans) json["plans"].push_back(to_json(plan));
    return json.dump(2) + "\n";
  }
  std::string text =
      fmt::format("{}\n{}\n{}", model::describe(config), describe(shape), describe(plans));
  if (options.memory.empty()) return text;
  const bool fits =
      largest(plans).rank_bytes() + study::program_bytes <= parse_memory(options.memory);
  return text +
         fmt::format("{} {} per rank.\n", fits ? "Fits into" : "Does not fit into", options.memory);
}

int run(const PlanOptions& options, bool chooses) {
  study::RunShape shape = options.shape;
  shape.dtype = parse_dtype(options.dtype);
  shape.transport = parse_dtype(options.reduce_dtype) == Dtype::bf16
                        ? zero3::GradientTransport::bf16
                        : zero3::GradientTransport::f32;
  shape.optimizer = zero3::optimizer_kind(options.optimizer);
  shape.recompute = model::parse_recompute(options.recompute);
  shape.shares_memory = !options.no_shared_memory;
  if (shape.batch == 0) shape.batch = shape.num_ranks;
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const model::ModelConfig config = read_config(world, options.model);
  if (shape.length > config.max_position) {
    fail(ErrorKind::usage, "--sequence-length {} is more than the model's {} positions",
         shape.length, config.max_position);
  }
  // On all ranks, so that what is wrong is wrong on all.
  const std::string text =
      chooses ? describe_grids(options, config, shape) : describe_ranks(options, config, shape);
  if (world.rank() == 0) fmt::print("{}", text);
  std::fflush(stdout);
  return 0;
}

}  // namespace

Command add_plan(CLI::App& program) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App* app = add_command(
      program, "plan", "Show how much memory a run will need on each rank, and which grid to take.",
      "  tessera plan gpt-oss-120b/config.json --ranks 64 --ranks-per-node 8 --dtype bf16\n"
      "         --sequence-length 4096 --memory 80GiB\n"
      "  tessera plan gpt-oss-20b/ --ranks 16 --expert 8 --ranks-per-node 8 --batch 32\n"
      "         --sequence-length 4096 --dtype bf16 --recompute layer\n"
      "Needs the configuration alone, and no launcher. Experts are taken as chosen equally often;\n"
      "--imbalance says how many rows the busiest has over the mean (`train` prints it as load).");
  study::RunShape& shape = options->shape;
  shape.batch = 0;
  app->add_option("model", options->model, "config.json, Hugging Face directory or Tessera file")
      ->required()
      ->type_name("MODEL");
  app->add_option("--ranks", shape.num_ranks, "ranks of the run")->required()->check(positive());
  CLI::Option* expert =
      app->add_option("--expert", shape.expert,
                      "ranks that hold different experts (default: all choices side by side)")
          ->check(positive())
          ->type_name("E");
  app->add_option("--ranks-per-node", shape.ranks_per_node, "ranks that share memory")
      ->capture_default_str()
      ->check(positive());
  app->add_option("--batch", shape.batch,
                  "sequences of one step, over all ranks (default: one per rank)")
      ->check(positive());
  app->add_option("--sequence-length", shape.length, "positions of a sequence")
      ->required()
      ->check(positive());
  app->add_option("--micro-batch", shape.micro_batch, "sequences of one rank at a time")
      ->check(positive());
  app->add_option("--dtype", options->dtype, "arithmetic: f32, or bf16 with f32 master weights")
      ->capture_default_str();
  app->add_option("--reduce-dtype", options->reduce_dtype, "in which gradients travel: f32 or bf16")
      ->capture_default_str();
  app->add_option("--optimizer", options->optimizer, "adamw or sgd")->capture_default_str();
  app->add_option("--recompute", options->recompute, "none, attention or layer")
      ->capture_default_str();
  app->add_option("--imbalance", shape.imbalance, "rows of the busiest expert over the mean")
      ->capture_default_str();
  app->add_option("--memory", options->memory, "limit per rank, e.g. 80GiB")->type_name("LIMIT");
  app->add_flag("--no-shared-memory", options->no_shared_memory,
                "as with TESSERA_SHARED_MEMORY=off");
  app->add_flag("--json", options->as_json, "print JSON");
  return {app, [options, expert] { return run(*options, expert->count() == 0); }, false};
}

}  // namespace tessera::apps
