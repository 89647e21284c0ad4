// SPDX-License-Identifier: Apache-2.0
// tessera study: sweeps of grids (run), their report, and steps on ranks that are not there
// (simulate).
#include <mpi.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <tessera/study/describe_plan.hpp>
#include <tessera/study/describe_time.hpp>
#include <tessera/study/simulation.hpp>
#include <tessera/study/study_report.hpp>
#include <tessera/study/study_run.hpp>

#include "comm/agree.hpp"
#include "command.hpp"
#include "config_text.hpp"
#include "numeric_options.hpp"
#include "plan_machine.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

struct StudyArguments {
  std::string model, machine, collectives = "hierarchical", dtype = "bf16", recompute = "none";
  std::string routing = "real", scaling = "weak";
  fs::path directory, output;
  std::vector<std::int64_t> ranks, experts{1};
  std::int64_t batch = 1, length = 512, index = -1, num_steps = 3, ranks_per_node = 0;
  int num_repeats = 5;
  bool only_lists = false;
  std::vector<std::string> stragglers;
  std::uint64_t seed = 1;
  GridOptions grid;
};

std::optional<study::PlanMachine> read_machine(const comm::Communicator& world,
                                               const StudyArguments& options) {
  if (options.machine.empty()) return std::nullopt;
  return read_plan_machine(world, options.machine, options.collectives);
}

study::RunShape run_shape(const StudyArguments& options) {
  study::RunShape shape;
  shape.length = options.length;
  shape.dtype = parse_dtype(options.dtype);
  shape.recompute = model::parse_recompute(options.recompute);
  return shape;
}

void print_points(const std::vector<study::RunShape>& points) {
  fmt::print("{:>6} {:>8} {:>8} {:>8}\n", "index", "ranks", "expert", "batch");
  for (std::size_t i = 0; i < points.size(); ++i) {
    fmt::print("{:>6} {:>8} {:>8} {:>8}\n", i, points[i].num_ranks, points[i].expert,
               points[i].batch);
  }
  std::fflush(stdout);
}

/// Of ranks that have nothing to do in a point: no deadline tells how long that may take.
comm::Communicator patient_ranks(const StudyArguments& options) {
  comm::CommunicatorOptions patient = communicator_options(options.grid);
  patient.deadline = std::chrono::hours(24);
  return {MPI_COMM_WORLD, "ranks between two points", patient};
}

/// On the first ranks of the job; the others wait. collective over world.
void run_one(const comm::Communicator& world, const StudyArguments& options, std::size_t index,
             const model::ModelConfig& config, const study::RunShape& shape,
             const study::Sweep& sweep, const study::StudyRunOptions& run) {
  const fs::path path = options.output / fmt::format("result-{:04}.h5", index);
  const bool takes_part = world.rank() < shape.num_ranks;
  const comm::Communicator group = world.split(takes_part ? 0 : 1, "study");
  if (takes_part) {
    GridOptions grid_options = options.grid;
    grid_options.expert = static_cast<int>(shape.expert);
    const comm::ProcessGrid grid = make_grid(grid_options, group.mpi());
    const study::StudyResult result = run_point(grid, config, shape, sweep, run);
    comm::agreed(group, "write the result", [&] {
      if (group.rank() == 0) save(result, path);
    });
    if (group.rank() == 0) {
      const study::Figure step = result.step();
      fmt::print("{:>4}: {}; batch {}: {} [{}, {}]{}\n", index, grid.describe(), shape.batch,
                 study::describe_seconds(step.value), study::describe_seconds(step.low),
                 study::describe_seconds(step.high),
                 result.has_plan()
                     ? fmt::format(", predicted {}", study::describe_seconds(result.planned_s))
                     : "");
      std::fflush(stdout);
    }
  }
}

int run(const StudyArguments& options) {
  const comm::Communicator world(MPI_COMM_WORLD, "world", communicator_options(options.grid));
  study::StudyRunOptions run;
  run.config_json = read_config_text(world, options.model);
  const model::ModelConfig config = model::parse_config(run.config_json, options.model);
  run.num_steps = options.num_steps, run.num_repeats = options.num_repeats;
  run.machine = read_machine(world, options);
  study::Sweep sweep;
  sweep.ranks = options.ranks;
  if (sweep.ranks.empty()) sweep.ranks = {world.size()};
  sweep.experts = options.experts;
  sweep.scaling = options.scaling == "strong" ? study::Scaling::strong : study::Scaling::weak;
  sweep.batch = options.batch;
  sweep.shape = run_shape(options);
  sweep.zipf = study::parse_routing(options.routing);
  const std::vector<study::RunShape> points = sweep_points(config, sweep);
  if (options.only_lists) {
    if (world.rank() == 0) print_points(points);
    return 0;
  }
  const auto count = static_cast<std::int64_t>(points.size());
  if (options.index >= count) {
    fail(ErrorKind::usage, "--index {} of {} points; --list shows them", options.index, count);
  }
  if (options.output.empty()) fail(ErrorKind::usage, "--output says where results go");
  trainer::make_directory(world, options.output);
  const comm::Communicator patient = patient_ranks(options);
  for (std::int64_t i = 0; i < count; ++i) {
    if (options.index >= 0 && i != options.index) continue;
    const study::RunShape& shape = points[static_cast<std::size_t>(i)];
    if (shape.num_ranks > world.size()) {
      fail(ErrorKind::usage, "point {} needs {} ranks and the job has {}", i, shape.num_ranks,
           world.size());
    }
    run_one(world, options, static_cast<std::size_t>(i), config, shape, sweep, run);
    patient.barrier("end of a point");
  }
  return 0;
}

int report(const StudyArguments& options) {
  const fs::path output = options.output.empty() ? options.directory : options.output;
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  comm::agreed(world, "write the report", [&] {
    if (world.rank() != 0) return;
    const std::vector<study::StudyResult> results = study::load_results(options.directory);
    const bool has_pictures = write_report(results, output);
    std::int64_t outside = 0;
    for (const study::StudyResult& result : results) {
      outside += result.has_plan() && result.leaves_model() ? 1 : 0;
    }
    fmt::print(
        "{} and .html: {} runs, {} outside the model{}\n", (output / "report.md").string(),
        results.size(), outside,
        has_pictures ? "" : "; no pictures: gnuplot is missing or failed on the scripts there");
    std::fflush(stdout);
  });
  return 0;
}

/// "RANK:SECONDS".
study::Straggler parse_straggler(const std::string& text) {
  study::Straggler straggler;
  char* end = nullptr;
  straggler.rank = std::strtoll(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != ':') {
    fail(ErrorKind::usage, "--late {} is not RANK:SECONDS", text);
  }
  const char* seconds = end + 1;
  straggler.delay_s = std::strtod(seconds, &end);
  if (end == seconds || *end != '\0' || !(straggler.delay_s >= 0.0)) {
    fail(ErrorKind::usage, "--late {} is not RANK:SECONDS", text);
  }
  return straggler;
}

int simulate(const StudyArguments& options) {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const auto machine = read_machine(world, options);
  const std::string config_json = read_config_text(world, options.model);
  const model::ModelConfig config = model::parse_config(config_json, options.model);
  study::RunShape shape = run_shape(options);
  shape.num_ranks = options.ranks.front(), shape.expert = options.experts.front();
  shape.batch = options.batch * shape.num_ranks;
  shape.ranks_per_node =
      options.ranks_per_node > 0 ? options.ranks_per_node : machine->machine.ranks_per_node;
  shape.shares_memory = machine->machine.shares_memory;
  constexpr std::int64_t most_ranks = 16384;
  if (shape.num_ranks > most_ranks) {
    fail(ErrorKind::usage, "at most {} ranks can be simulated; `tessera plan` goes on", most_ranks);
  }
  study::SimulationOptions simulation{machine->algorithm, {}};
  for (const std::string& late : options.stragglers) {
    simulation.stragglers.push_back(parse_straggler(late));
  }
  const auto zipf = study::parse_routing(options.routing);
  const study::Routing routing = study::Routing::zipf(config, zipf.value_or(0.0), options.seed);
  const study::SimulatedStep step =
      simulate_step(config, shape, machine->machine, routing, simulation);
  const double planned = plan_time(config, shape, machine->machine, machine->algorithm).seconds();
  if (world.rank() != 0) return 0;
  fmt::print("{}\n{}\non {}, collectives {}, busiest expert rank {:.2f} times the mean\n",
             model::describe(config), describe(shape), machine->machine.name,
             to_string(machine->algorithm), routing.busiest_rank(shape.expert));
  fmt::print("step {}, balanced and punctual {}; {} messages\n",
             study::describe_seconds(step.seconds), study::describe_seconds(planned),
             step.num_messages);
  for (std::size_t i = 0; i < num_step_phases; ++i) {
    if (step.phases[i] == 0.0) continue;
    fmt::print("{:<22} {:>10}\n", to_string(static_cast<StepPhase>(i)),
               study::describe_seconds(step.phases[i]));
  }
  std::fflush(stdout);
  return 0;
}

void add_model_options(CLI::App& app, StudyArguments& options) {
  app.add_option("model", options.model, "config.json, or a directory that has one")
      ->required()
      ->type_name("MODEL");
  app.add_option("--sequence-length", options.length, "positions of a sequence")
      ->capture_default_str()
      ->check(positive());
  app.add_option("--dtype", options.dtype, "arithmetic: f32 or bf16")->capture_default_str();
  app.add_option("--recompute", options.recompute, "none, attention or layer")
      ->capture_default_str();
  app.add_option("--machine", options.machine, "machine file, for predictions")->type_name("FILE");
  app.add_option("--collectives", options.collectives, "ring, logarithmic or hierarchical")
      ->capture_default_str();
}

CLI::App* add_run(CLI::App& study, StudyArguments& options) {
  CLI::App* app =
      add_command(study, "run", "Train a few steps on each grid of a sweep and record them.",
                  "  mpirun -n 4 tessera study run config.json --ranks 1,2,4 --expert 1,2,4 "
                  "--output results \\\n"
                  "         --machine machine.json\n"
                  "  srun -n 64 tessera study run config.json --ranks 16,32,64 --expert 8 --index "
                  "$SLURM_ARRAY_TASK_ID \\\n"
                  "         --scaling strong --batch 64 --output results\n"
                  "Weights and tokens are random. Each point has an index and a file "
                  "result-INDEX.h5; --list shows\n"
                  "them, --index runs one of them, as a task of a job array does.");
  add_model_options(*app, options);
  app->add_option("--output", options.output, "directory of the results")->type_name("DIR");
  app->add_option("--ranks", options.ranks, "numbers of ranks (default: all of the job)")
      ->delimiter(',')
      ->check(positive());
  app->add_option("--expert", options.experts, "expert axes; those that do not divide are left out")
      ->delimiter(',')
      ->capture_default_str()
      ->check(positive());
  app->add_option("--scaling", options.scaling, "weak: --batch is of each rank; strong: of a step")
      ->capture_default_str()
      ->check(CLI::IsMember({"weak", "strong"}));
  app->add_option("--batch", options.batch, "sequences")->capture_default_str()->check(positive());
  app->add_option("--routing", options.routing, "real, balanced or zipf:EXPONENT (gpt_oss)")
      ->capture_default_str();
  app->add_option("--steps", options.num_steps, "of one repeat, after one more")
      ->capture_default_str()
      ->check(positive());
  app->add_option("--repeat", options.num_repeats, "repeats, for the intervals")
      ->capture_default_str()
      ->check(positive());
  app->add_option("--index", options.index, "run this point alone")->check(non_negative());
  app->add_flag("--list", options.only_lists, "show the points and their indices");
  add_wait_options(*app, options.grid);
  return app;
}

CLI::App* add_report(CLI::App& study, StudyArguments& options) {
  CLI::App* app = add_command(study, "report", "Tables and pictures of recorded runs.",
                              "  tessera study report results --output report\n"
                              "Writes report.md, report.html and, with gnuplot, their pictures.");
  app->add_option("results", options.directory, "directory of result-*.h5")
      ->required()
      ->type_name("DIR");
  app->add_option("--output", options.output, "directory of the report (default: the same)")
      ->type_name("DIR");
  return app;
}

CLI::App* add_simulate(CLI::App& study, StudyArguments& options) {
  CLI::App* app = add_command(
      study, "simulate", "Simulate one step event by event: imbalance, late ranks, contention.",
      "  tessera study simulate config.json --ranks 1024 --expert 64 --routing zipf:0.5 \\\n"
      "         --machine share/machines/h100.json --late 17:0.1\n");
  add_model_options(*app, options);
  app->get_option("--machine")->required();
  app->add_option("--ranks", options.ranks, "ranks, at most 16,384")->required()->expected(1);
  app->add_option("--expert", options.experts, "ranks that hold different experts")->expected(1);
  app->add_option("--ranks-per-node", options.ranks_per_node, "(default: the machine's)")
      ->check(positive());
  app->add_option("--batch", options.batch, "sequences of each rank")
      ->capture_default_str()
      ->check(positive());
  app->add_option("--routing", options.routing, "balanced or zipf:EXPONENT");
  app->add_option("--seed", options.seed, "of the order of experts")->capture_default_str();
  app->add_option("--late", options.stragglers, "a rank that begins late, RANK:SECONDS");
  return app;
}

}  // namespace

Command add_study(CLI::App& program) {
  const auto run_options = std::make_shared<StudyArguments>(),
             report_options = std::make_shared<StudyArguments>(),
             simulate_options = std::make_shared<StudyArguments>();
  CLI::App* app = add_command(program, "study", "Scaling studies: run, report, simulate.",
                              "  tessera study run --help\n  tessera study report --help\n"
                              "  tessera study simulate --help");
  app->require_subcommand(1);
  const CLI::App* runs = add_run(*app, *run_options);
  const CLI::App* reports = add_report(*app, *report_options);
  add_simulate(*app, *simulate_options);
  return {app,
          [=] {
            if (runs->parsed()) return run(*run_options);
            if (reports->parsed()) return report(*report_options);
            return simulate(*simulate_options);
          },
          [runs] { return runs->parsed(); }};
}

}  // namespace tessera::apps
