// SPDX-License-Identifier: Apache-2.0
// `tessera probe`: loss, logits and gradients on given tokens, to compare with PyTorch.
#include "tessera/trainer/probe.hpp"

#include <memory>

#include "base/log.hpp"
#include "command.hpp"
#include "numeric_options.hpp"

namespace tessera::apps {
namespace {

struct ProbeArguments {
  std::string model;
  std::string dtype = "f32";
  NumericOptions numeric;
  trainer::ProbeOptions probe;
  checkpoint::KeyOptions keys;
  GridOptions grid;
};

int run(ProbeArguments options) {
  options.probe.dtype = parse_dtype(options.dtype);
  options.probe.optimizer = optimizer_options(options.numeric);
  options.probe.optimizer.decay_all = true;  // as torch's optimizers over model.parameters()
  const comm::ProcessGrid grid = make_grid(options.grid);
  trainer::ModelSource model = trainer::open_model(grid.world(), options.model, options.keys);
  log_info("{}; {}", model::describe(model.config), grid.describe());
  if (model.config.output_router_logits && options.probe.aux_coefficient == 0.0) {
    log_info(
        "the configuration asks for router logits (coefficient {}); --aux-loss-coef turns the "
        "auxiliary loss on",
        model.config.router_aux_loss_coef);
  }
  const trainer::ProbeResult result = run_probe(grid, model, options.probe);
  if (grid.world().rank() != 0) return 0;
  if (result.num_targets == 0)
    log_warning("no label takes part in the loss: it is 0, no step was taken");
  fmt::print("loss {:.9g} over {} targets, gradient norm {:.9g}\n", result.loss, result.num_targets,
             result.grad_norm);
  for (std::size_t i = 0; i < result.losses.size(); ++i) {
    fmt::print("loss before step {}: {:.9g}\n", i + 1, result.losses[i]);
  }
  fmt::print("written to {}\n", options.probe.output.string());
  return 0;
}

}  // namespace

Command add_probe(CLI::App& program) {
  const auto options = std::make_shared<ProbeArguments>();
  options->numeric.weight_decay = 0.0;
  CLI::App* app = add_command(
      program, "probe",
      "One forward and backward on given tokens; everything goes to an HDF5 file.",
      "  tessera probe gpt-oss-20b/ --tokens tokens.npy --output probe.h5\n"
      "  mpirun -n 4 tessera probe model.h5 --tokens t.npy --labels l.npy --expert 2 --output "
      "out.h5\n"
      "  tessera probe model/ --tokens t.npy --steps 3 --optimizer sgd --lr 0.1 --output out.h5\n"
      "The file has /loss, /logits, /grad_norm and /grad/<tensor> for the untouched weights, "
      "/losses (before\n"
      "each step) and /param/<tensor> (after the last), named and shaped as in the Hugging Face "
      "checkpoint.\n"
      "Labels are shifted inside, as transformers does; -100 is ignored.");
  app->add_option("model", options->model,
                  "Hugging Face directory, Tessera file, or a run's directory")
      ->required()
      ->type_name("MODEL");
  app->add_option("--tokens", options->probe.tokens, "token ids [B, S]: .npy or HDF5")->required();
  app->add_option("--labels", options->probe.labels,
                  "labels of the same shape (default: the tokens)");
  app->add_option("--dtype", options->dtype, "arithmetic: f32 or bf16")->capture_default_str();
  app->add_option("--aux-loss-coef", options->probe.aux_coefficient,
                  "coefficient of the load-balancing loss; 0 leaves it out")
      ->capture_default_str()
      ->check(non_negative());
  app->add_option("--steps", options->probe.num_steps, "optimizer steps on the same batch")
      ->capture_default_str()
      ->check(non_negative());
  app->add_option("--lr", options->probe.learning_rate, "learning rate")
      ->capture_default_str()
      ->check(non_negative());
  app->add_option("--clip", options->probe.max_grad_norm,
                  "clip the gradient to this norm; 0: no clipping")
      ->capture_default_str()
      ->check(non_negative());
  add_optimizer_options(*app, options->numeric);
  app->add_option("--output", options->probe.output, "HDF5 file to be")
      ->required()
      ->type_name("OUT.h5");
  add_key_options(*app, options->keys);
  add_grid_options(*app, options->grid);
  return {app, [options] { return run(*options); }};
}

}  // namespace tessera::apps
