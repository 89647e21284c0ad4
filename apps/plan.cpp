// SPDX-License-Identifier: Apache-2.0
// tessera plan: memory, traffic and time of a run, grid by grid, from config.json and a machine
// file.
#include <mpi.h>

#include <cmath>
#include <memory>
#include <optional>
#include <tessera/study/describe_plan.hpp>
#include <tessera/study/plan_json.hpp>

#include "base/error.hpp"
#include "command.hpp"
#include "config_text.hpp"
#include "numeric_options.hpp"
#include "plan_machine.hpp"

namespace tessera::apps {
namespace {

struct PlanOptions {
  std::string model;
  study::RunShape shape;  ///< batch and ranks_per_node 0: not given
  std::vector<std::int64_t> ranks;
  std::string machine, collectives = "hierarchical";
  double node_mtbf_h = 0.0;
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

/// What is to be planned, from options and machine file.
struct Request {
  model::ModelConfig config;
  study::RunShape shape;
  std::optional<study::PlanMachine> machine;
  std::optional<std::int64_t> limit_bytes;
  std::optional<double> node_mtbf_s;

  const study::PlanMachine* machine_or_null() const { return machine ? &*machine : nullptr; }
};

std::string describe_rank_counts(const PlanOptions& options, Request& request) {
  std::vector<study::RankCountPlan> plans;
  for (const std::int64_t num_ranks : options.ranks) {
    request.shape.num_ranks = num_ranks;
    request.shape.batch = options.shape.batch > 0 ? options.shape.batch : num_ranks;
    study::RankCountPlan plan{request.shape, std::nullopt};
    const std::vector<study::GridPlan> grids =
        plan_grids(request.config, request.shape, request.machine_or_null());
    if (const auto best = best_grid(grids, request.limit_bytes)) plan.best = grids[*best];
    plans.push_back(std::move(plan));
  }
  if (options.as_json) return to_json(plans);
  return fmt::format(
      "{}\n{} per node, {} positions, {}, recompute {}{}\n{}", model::describe(request.config),
      request.shape.ranks_per_node, request.shape.length, options.dtype, options.recompute,
      request.machine ? "; times of " + request.machine->machine.name : "", describe(plans));
}

std::string describe_grids(const PlanOptions& options, const Request& request) {
  const std::vector<study::GridPlan> grids =
      plan_grids(request.config, request.shape, request.machine_or_null());
  if (options.as_json) return to_json(grids, request.limit_bytes);
  return fmt::format("{}\n{} ranks, {} per node; batch {} x {}, {}, recompute {}{}\n{}",
                     model::describe(request.config), request.shape.num_ranks,
                     request.shape.ranks_per_node, request.shape.batch, request.shape.length,
                     options.dtype, options.recompute,
                     request.machine ? "; times of " + request.machine->machine.name : "",
                     describe(grids, request.limit_bytes));
}

std::string describe_grid(const PlanOptions& options, const Request& request) {
  study::GridDetails details;
  details.shape = request.shape;
  details.memory = plan_memory(request.config, request.shape);
  details.traffic =
      planned_traffic(request.config, model::parameter_units(request.config), request.shape);
  if (request.machine) {
    details.time = plan_time(request.config, request.shape, request.machine->machine,
                             request.machine->algorithm);
  }
  if (request.machine && request.node_mtbf_s) {
    details.interval = checkpoint_interval(request.config, request.shape, request.machine->machine,
                                           *request.node_mtbf_s);
  }
  if (options.as_json) return to_json(details);
  std::string text = fmt::format("{}\n{}\n{}", model::describe(request.config),
                                 describe(details.shape), describe(details.memory));
  if (request.limit_bytes) {
    const bool fits =
        largest(details.memory).rank_bytes() + study::program_bytes <= *request.limit_bytes;
    text += fmt::format("{} {} per rank.\n", fits ? "Fits into" : "Does not fit into",
                        format_bytes(static_cast<double>(*request.limit_bytes)));
  }
  text += "\n" + describe(details.traffic);
  if (details.time) {
    text += fmt::format("\nOn {}, collectives {}:\n{}", request.machine->machine.name,
                        to_string(request.machine->algorithm), describe(*details.time));
  }
  if (details.interval) text += "\n" + describe(*details.interval);
  return text;
}

/// What the options leave open the machine file says.
Request make_request(const comm::Communicator& world, const PlanOptions& options) {
  Request request;
  study::RunShape& shape = request.shape = options.shape;
  shape.dtype = parse_dtype(options.dtype);
  shape.transport = parse_dtype(options.reduce_dtype) == Dtype::bf16
                        ? zero3::GradientTransport::bf16
                        : zero3::GradientTransport::f32;
  shape.optimizer = zero3::optimizer_kind(options.optimizer);
  shape.recompute = model::parse_recompute(options.recompute);
  shape.num_ranks = options.ranks.front();
  if (shape.batch == 0) shape.batch = shape.num_ranks;
  if (!options.memory.empty()) request.limit_bytes = parse_memory(options.memory);
  if (options.node_mtbf_h > 0.0) request.node_mtbf_s = 3600.0 * options.node_mtbf_h;
  if (!options.machine.empty()) {
    request.machine = read_plan_machine(world, options.machine, options.collectives);
    const study::Machine& machine = request.machine->machine;
    shape.shares_memory = machine.shares_memory;
    if (shape.ranks_per_node == 0) shape.ranks_per_node = machine.ranks_per_node;
    if (!request.node_mtbf_s && machine.node_mtbf_s) {
      request.node_mtbf_s = machine.node_mtbf_s->value;
    }
    if (!request.limit_bytes && machine.memory_bytes) {
      request.limit_bytes = static_cast<std::int64_t>(machine.memory_bytes->value);
    }
  }
  if (shape.ranks_per_node == 0) shape.ranks_per_node = 1;
  if (options.no_shared_memory) shape.shares_memory = false;
  request.config = model::parse_config(read_config_text(world, options.model), options.model);
  if (shape.length > request.config.max_position) {
    fail(ErrorKind::usage, "--sequence-length {} is more than the model's {} positions",
         shape.length, request.config.max_position);
  }
  return request;
}

int run(const PlanOptions& options, bool chooses) {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  Request request = make_request(world, options);
  if (!chooses && options.ranks.size() > 1) {
    fail(ErrorKind::usage, "--expert is for one number of ranks; without it each gets its best");
  }
  // On all ranks, so that what is wrong is wrong on all.
  const std::string text = options.ranks.size() > 1 ? describe_rank_counts(options, request)
                           : chooses                ? describe_grids(options, request)
                                                    : describe_grid(options, request);
  if (world.rank() == 0) fmt::print("{}", text);
  std::fflush(stdout);
  return 0;
}

}  // namespace

Command add_plan(CLI::App& program) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App* app = add_command(
      program, "plan",
      "Show what a run will need on each rank: memory, traffic, time; and which grid to take.",
      "  tessera plan gpt-oss-120b/config.json --ranks 64 --ranks-per-node 8 --dtype bf16\n"
      "         --sequence-length 4096 --memory 80GiB\n"
      "  tessera plan gpt-oss-120b/config.json --ranks 64,256,1024,4096 --dtype bf16\n"
      "         --sequence-length 4096 --recompute layer --machine share/machines/h100.json\n"
      "  tessera plan gpt-oss-20b/ --ranks 16 --expert 8 --ranks-per-node 8 --batch 32\n"
      "         --sequence-length 4096 --dtype bf16 --recompute layer\n"
      "Needs the configuration alone, and no launcher. With a machine file (`tessera calibrate`, "
      "or\n"
      "those in share/machines) it tells the time of a step, what binds each phase, and how often "
      "to\n"
      "save; memory limit, ranks per node and failure rate come from that file unless they are "
      "given.\n"
      "Several numbers of ranks: the best grid of each. Experts are taken as chosen equally "
      "often;\n"
      "--imbalance says how many rows the busiest has over the mean (`train` prints it as load).");
  study::RunShape& shape = options->shape;
  shape.batch = 0;
  shape.ranks_per_node = 0;
  app->add_option("model", options->model, "config.json, Hugging Face directory or Tessera file")
      ->required()
      ->type_name("MODEL");
  app->add_option("--ranks", options->ranks, "ranks of the run; several: a line for each")
      ->required()
      ->delimiter(',')
      ->check(positive())
      ->type_name("N,...");
  CLI::Option* expert =
      app->add_option("--expert", shape.expert,
                      "ranks that hold different experts (default: all choices side by side)")
          ->check(positive())
          ->type_name("E");
  app->add_option("--ranks-per-node", shape.ranks_per_node,
                  "ranks of a node (default: as the machine file says, or 1)")
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
  app->add_option("--machine", options->machine, "machine file (modules/study/MACHINE.md)")
      ->type_name("FILE");
  app->add_option("--collectives", options->collectives, "ring, logarithmic or hierarchical")
      ->capture_default_str();
  app->add_option("--node-mtbf", options->node_mtbf_h, "mean time between failures of a node [h]")
      ->check(positive());
  app->add_flag("--no-shared-memory", options->no_shared_memory,
                "as with TESSERA_SHARED_MEMORY=off");
  app->add_flag("--json", options->as_json, "print JSON");
  return {app, [options, expert] { return run(*options, expert->count() == 0); },
          [] { return false; }};
}

}  // namespace tessera::apps
