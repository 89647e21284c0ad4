// SPDX-License-Identifier: Apache-2.0
// `tessera train`: options of a training run.
#include <cstdlib>
#include <memory>
#include <optional>
#include <tessera/study/describe_plan.hpp>

#include "base/log.hpp"
#include "command.hpp"
#include "numeric_options.hpp"
#include "tessera/trainer/run_plan.hpp"
#include "tessera/trainer/training_run.hpp"

namespace tessera::apps {
namespace {

struct TrainArguments {
  std::string dtype = "f32";
  std::string schedule = "cosine";
  std::string reduce_dtype = "f32";
  std::string recompute = "none";
  std::string flat_dtype;
  std::string export_experts;
  std::string time_limit;
  bool no_verify = false;
  bool no_save = false;
  bool dry_run = false;
  NumericOptions numeric;
  trainer::TrainingOptions training;
  GridOptions grid;
};

trainer::FlatDtype parse_flat_dtype(const std::string& name) {
  if (name.empty()) return trainer::FlatDtype::by_extension;
  if (name == "u16") return trainer::FlatDtype::u16;
  if (name == "u32") return trainer::FlatDtype::u32;
  fail(ErrorKind::usage, "--data-dtype {} is unknown; use u16 or u32", name);
}

void require_sensible(const trainer::TrainingOptions& options) {
  if (options.model.empty() && options.resume.empty()) {
    fail(ErrorKind::usage, "give MODEL, or --resume with an earlier run");
  }
  if (options.continues && !options.resume.empty()) {
    fail(ErrorKind::usage, "--continue resumes from --output, --resume from {}; give one of them",
         options.resume.string());
  }
  if (options.evaluate_every > 0 && options.num_held_out == 0) {
    fail(ErrorKind::usage, "--evaluate-every needs sequences to evaluate on; give --held-out");
  }
}

/// local. length: positions of a sequence.
study::RunShape run_shape(const comm::ProcessGrid& grid, const trainer::TrainingOptions& training,
                          std::int64_t length) {
  const char* shared_memory = std::getenv("TESSERA_SHARED_MEMORY");
  study::RunShape shape;
  shape.num_ranks = grid.world().size();
  shape.expert = grid.expert().size();
  shape.ranks_per_node = grid.node().size();
  shape.shares_memory = shared_memory == nullptr || std::string_view(shared_memory) != "off";
  shape.batch = training.batch;
  shape.micro_batch = training.micro_batch;
  shape.length = length;
  shape.dtype = training.dtype;
  shape.optimizer = training.optimizer.kind;
  shape.transport = training.gradient_transport;
  shape.recompute = training.recompute;
  return shape;
}

/// collective over grid.world().
std::int64_t sequence_length(const comm::ProcessGrid& grid, std::int64_t vocab_size,
                             const trainer::TrainingOptions& training) {
  trainer::TokenDataOptions data_options = training.data_options;
  data_options.vocab_size = vocab_size;
  return trainer::TokenData::open(grid.world(), training.data, data_options).sequence_length();
}

/// Keys, what each rank would read and the memory that it would need.
int show_plan(const comm::ProcessGrid& grid, const trainer::TrainingOptions& training) {
  trainer::ModelSource model = open_start(grid, training);
  const std::vector<Parameter> parameters = all_parameters(model.units);
  const std::string keys = compare_keys(*model.source, parameters, model.keys).describe();
  const std::vector<trainer::RankPlan> plans = plan_run(grid, model);
  const study::RunShape shape =
      run_shape(grid, training, sequence_length(grid, model.config.vocab_size, training));
  if (grid.world().rank() == 0) {
    fmt::print("{}\n{}\n{}\n{}\n{}", model::describe(model.config), describe(shape), keys,
               describe(plans), describe(plan_memory(model.config, shape)));
  }
  return 0;
}

/// The exit code.
int tell_outcome(const trainer::TrainingOptions& training,
                 const trainer::TrainingSummary& summary) {
  const bool is_done = summary.stopped == trainer::StopReason::none;
  if (training.num_steps == 0) {
    log_info("no step: {}", summary.checkpoint.string());
  } else if (summary.last_step > summary.first_step) {
    log_info("steps {} to {}: loss {:.4f} to {:.4f}; {}", summary.first_step + 1, summary.last_step,
             summary.first_loss, summary.last_loss,
             summary.checkpoint.empty() ? "nothing saved" : summary.checkpoint.string());
  } else if (is_done) {
    log_info("nothing to do: step {} is done (--steps and --total-steps say when to stop)",
             summary.first_step);
  }
  return is_done ? 0 : exit_code(ErrorKind::interrupted);
}

int run(TrainArguments options, const trainer::StopRequest& stop) {
  trainer::TrainingOptions& training = options.training;
  training.dtype = parse_dtype(options.dtype);
  training.gradient_transport = parse_dtype(options.reduce_dtype) == Dtype::bf16
                                    ? zero3::GradientTransport::bf16
                                    : zero3::GradientTransport::f32;
  training.recompute = model::parse_recompute(options.recompute);
  training.optimizer = optimizer_options(options.numeric);
  training.schedule.kind = trainer::parse_schedule(options.schedule);
  training.export_options.experts = parse_expert_format(options.export_experts);
  training.verify = options.no_verify ? trainer::Verify::no : trainer::Verify::yes;
  training.saves_at_end = !options.no_save;
  training.data_options.flat_dtype = parse_flat_dtype(options.flat_dtype);
  if (!options.time_limit.empty())
    training.time_limit.limit_s = trainer::parse_time_limit(options.time_limit);
  require_sensible(training);
  const comm::ProcessGrid grid = make_grid(options.grid);
  if (options.dry_run) return show_plan(grid, trainer::continued(grid.world(), training));
  training.foretell_memory = [&](const model::ModelConfig& config, std::int64_t length) {
    try {
      return summarize(largest(plan_memory(config, run_shape(grid, training, length))));
    } catch (const Error&) {
      return std::string();  // a grid that is not planned for
    }
  };
  return tell_outcome(training, run_training(grid, training, stop));
}

void add_data_options(CLI::App& app, TrainArguments& options) {
  trainer::TrainingOptions& training = options.training;
  trainer::TokenDataOptions& data = training.data_options;
  app.add_option("--data", training.data, "tokens: HDF5, .npy, or flat uint16/uint32")->required();
  app.add_option("--dataset", data.dataset, "dataset of an HDF5 file (default: tokens)");
  app.add_option("--data-dtype", options.flat_dtype,
                 "of a flat file: u16 or u32 (default: .u32 is u32, all others u16)");
  app.add_option("--labels", data.labels.path, "labels of the tokens' shape (default: the tokens)");
  app.add_option("--labels-dataset", data.labels.dataset, "labels in an HDF5 file");
  app.add_option("--mask", data.mask.path, "loss mask of the tokens' shape; 0 leaves a token out");
  app.add_option("--mask-dataset", data.mask.dataset, "loss mask in an HDF5 file");
  app.add_option("--sequence-length", data.sequence_length,
                 "tokens of a sequence, for S - 1 targets (default: the data's width)")
      ->check(positive());
  app.add_option("--held-out", training.num_held_out, "last sequences, kept for evaluation")
      ->capture_default_str()
      ->check(non_negative());
}

void add_length_options(CLI::App& app, TrainArguments& options) {
  trainer::TrainingOptions& training = options.training;
  app.add_option("--steps", training.num_steps,
                 "stop after this step; a resumed run that is past it does so many more, up to "
                 "--total-steps; 0: load, prove, save and export")
      ->capture_default_str()
      ->check(non_negative());
  app.add_option("--total-steps", training.total_steps,
                 "length of the schedule, where the run is shorter (default: --steps, or the "
                 "resumed run's if longer)")
      ->check(positive());
  app.add_option("--batch", training.batch, "sequences of one step, over all ranks")
      ->capture_default_str()
      ->check(positive());
  app.add_option("--micro-batch", training.micro_batch,
                 "sequences of one rank at a time; gradients accumulate (default: all)")
      ->check(positive());
  app.add_option("--evaluate-every", training.evaluate_every, "steps between evaluations")
      ->check(positive());
  app.add_option("--save-every", training.save_every,
                 "steps between checkpoints (default: at the end)")
      ->check(positive());
  app.add_option("--keep", training.num_kept, "checkpoints to keep, the newest (default: all)")
      ->check(positive());
  app.add_option("--log-every", training.log_every, "steps between lines of the table")
      ->capture_default_str()
      ->check(positive());
  app.add_option("--time-limit", options.time_limit,
                 "of this process: seconds or [D-]HH:MM:SS (default: what Slurm says of the job)")
      ->envname("TESSERA_TIME_LIMIT")
      ->type_name("TIME");
  app.add_option("--time-margin", training.time_limit.margin_s,
                 "kept free before the limit besides the longest step and save [s]")
      ->capture_default_str()
      ->check(non_negative());
  app.add_option("--seed", training.seed,
                 "of the order of the sequences; a resumed run keeps its own")
      ->capture_default_str();
}

void add_arithmetic_options(CLI::App& app, TrainArguments& options) {
  trainer::TrainingOptions& training = options.training;
  app.add_option("--dtype", options.dtype, "arithmetic: f32, or bf16 with f32 master weights")
      ->capture_default_str();
  app.add_option("--reduce-dtype", options.reduce_dtype, "in which gradients travel: f32 or bf16")
      ->capture_default_str();
  app.add_option("--recompute", options.recompute,
                 "compute again in backward instead of keeping: none, attention or layer")
      ->capture_default_str();
  app.add_option("--lr", training.schedule.peak, "highest learning rate")
      ->capture_default_str()
      ->check(non_negative());
  app.add_option("--schedule", options.schedule, "cosine, linear or constant")
      ->capture_default_str();
  app.add_option("--warmup", training.schedule.num_warmup_steps, "steps of linear warm-up")
      ->capture_default_str()
      ->check(non_negative());
  app.add_option("--min-lr-fraction", training.schedule.min_fraction, "last learning rate / --lr")
      ->capture_default_str()
      ->check(non_negative());
  app.add_option("--clip", training.max_grad_norm, "clip the gradient to this norm; 0: no clipping")
      ->capture_default_str()
      ->check(non_negative());
  app.add_option("--aux-loss-coef", training.aux_coefficient,
                 "coefficient of the load-balancing loss")
      ->capture_default_str()
      ->check(non_negative());
  add_optimizer_options(app, options.numeric);
}

}  // namespace

Command add_train(CLI::App& program) {
  const auto options = std::make_shared<TrainArguments>();
  CLI::App* app = add_command(
      program, "train", "Train a model; metrics, checkpoints and the loss curve go to a directory.",
      "  mpirun -n 4 tessera train gpt-oss-20b/ --data text.u16 --sequence-length 1024 --batch 8\n"
      "         --steps 1000 --expert 4 --dtype bf16 --save-every 100 --output run\n"
      "  mpirun -n 8 tessera train --resume run --data text.u16 --sequence-length 1024 --batch 8\n"
      "         --steps 2000 --expert 2 --dtype bf16 --output run\n"
      "  srun --mpi=pmix tessera train MODEL --continue --output run ...     # see "
      "slurm/README.md\n"
      "DIR/metrics.jsonl has one line per step, DIR/latest names the newest checkpoint, DIR/lock "
      "keeps\n"
      "other runs out. SIGUSR1 or SIGTERM to a rank, or a time limit that leaves no time for "
      "another\n"
      "step and a checkpoint, ends the run with a checkpoint and exit code 7; during the load it "
      "ends\n"
      "at once and changes nothing. To mpirun send USR1, which it passes on (TERM it answers by "
      "killing\n"
      "the ranks soon after).\n"
      "Weight decay leaves norms, biases and sinks alone.");
  trainer::TrainingOptions& training = options->training;
  app->add_option("model", training.model, "Hugging Face directory or Tessera file")
      ->type_name("MODEL");
  app->add_option("--resume", training.resume,
                  "go on from an earlier run's DIR, or from a Tessera file")
      ->type_name("DIR");
  app->add_flag(
      "--continue", training.continues,
      "resume from --output if it has a checkpoint, else begin with MODEL: the same command\n"
      "for the first job and for those that go on");
  app->add_option("--output", training.output, "directory for what the run writes")
      ->required()
      ->type_name("DIR");
  app->add_option("--export", training.export_directory,
                  "write a Hugging Face directory at the end, straight from the ranks")
      ->type_name("HFDIR");
  app->add_option("--export-experts", options->export_experts,
                  "experts of that directory: bf16 or mxfp4 (default: as they came)");
  app->add_flag("--no-verify", options->no_verify,
                "do not compare the fingerprints of file and shards after the load");
  app->add_flag("--no-save", options->no_save, "no checkpoint after the last step, to time a run");
  app->add_flag("--dry-run", options->dry_run,
                "show keys, what each rank would read and the memory it needs; read headers only");
  add_data_options(*app, *options);
  add_length_options(*app, *options);
  add_arithmetic_options(*app, *options);
  app->add_flag("--profile", training.profile,
                "time the phases of the steps: a table at the end, profile.json, and trace.json\n"
                "of the last steps for chrome://tracing or ui.perfetto.dev");
  add_key_options(*app, training.keys);
  add_grid_options(*app, options->grid);
  // Never destroyed: a launcher that has seen the first ranks end may send the others SIGTERM,
  // which is not to change their exit codes.
  static auto& stop = *new std::optional<trainer::StopRequest>;
  return {app, [options] { return run(*options, stop.value()); }, [] { return true; },
          [] { stop.emplace(); }};
}

}  // namespace tessera::apps
