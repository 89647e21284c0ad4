// SPDX-License-Identifier: Apache-2.0
#include <tessera/trainer/trainer.hpp>

#include "handles.hpp"
#include "status.hpp"

struct tessera_trainer {
  tessera::c::SharedGrid grid;
  std::unique_ptr<tessera::trainer::Trainer> trainer;
};

using namespace tessera;

namespace {

trainer::Trainer& driven(tessera_trainer* trainer) {
  tessera::c::require(trainer != nullptr, "the trainer is NULL");
  return *trainer->trainer;
}

}  // namespace

tessera_status tessera_trainer_create(tessera_grid* grid, const char* configuration,
                                      tessera_trainer** trainer) {
  return c::guarded([&] {
    const c::SharedGrid& shared = c::shared(grid);
    auto options = comm::agreed(shared->world(), "configuration of tessera_trainer_create", [&] {
      c::require(configuration != nullptr && trainer != nullptr,
                 "tessera_trainer_create: configuration or trainer is NULL");
      return trainer::parse_training_options(configuration);
    });
    *trainer = new tessera_trainer{shared, trainer::Trainer::create(*shared, std::move(options))};
  });
}

tessera_status tessera_trainer_step(tessera_trainer* trainer, tessera_step* result) {
  return c::guarded([&] {
    const trainer::StepMetrics metrics = driven(trainer).step();
    if (result == nullptr) return;
    *result = {metrics.step,        metrics.loss,   metrics.grad_norm,      metrics.learning_rate,
               metrics.expert_load, metrics.step_s, metrics.dropped ? 0 : 1};
  });
}

tessera_status tessera_trainer_evaluate(tessera_trainer* trainer, double* loss) {
  return c::guarded([&] {
    const double mean = driven(trainer).evaluate();
    if (loss != nullptr) *loss = mean;
  });
}

tessera_status tessera_trainer_save(tessera_trainer* trainer, const char* path,
                                    const tessera_fields* fields) {
  return c::guarded([&] {
    trainer::Trainer& run = driven(trainer);
    comm::agreed(trainer->grid->world(), "arguments of tessera_trainer_save",
                 [&] { c::require(path != nullptr, "tessera_trainer_save: path is NULL"); });
    run.save(path, c::fields_of(fields));
  });
}

tessera_status tessera_trainer_export(tessera_trainer* trainer, const char* directory) {
  return c::guarded([&] {
    trainer::Trainer& run = driven(trainer);
    comm::agreed(trainer->grid->world(), "arguments of tessera_trainer_export", [&] {
      c::require(directory != nullptr, "tessera_trainer_export: directory is NULL");
    });
    run.export_hugging_face(directory);
  });
}

void tessera_trainer_destroy(tessera_trainer* trainer) { delete trainer; }
