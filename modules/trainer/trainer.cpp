// SPDX-License-Identifier: Apache-2.0
#include <tessera/trainer/trainer.hpp>

#include "base/error.hpp"
#include "training_session.hpp"

namespace tessera::trainer {
namespace {

template <class T>
class TypedTrainer final : public Trainer {
 public:
  TypedTrainer(const comm::ProcessGrid& grid, TrainingOptions options, ModelSource source)
      : options_(std::move(options)), session_(grid, options_, std::move(source)) {
    session_.data().validate(grid.world());
    session_.load();
  }

  StepMetrics step() override { return session_.step().metrics; }
  double evaluate() override {
    if (session_.sampler().num_held_out() == 0)
      fail(ErrorKind::usage, "there are no held-out sequences; give held-out");
    return session_.evaluate();
  }
  void save(const std::filesystem::path& path, std::span<const checkpoint::Field> fields) override {
    session_.save(path, fields);
  }
  void export_hugging_face(const std::filesystem::path& directory) override {
    session_.export_hugging_face(directory);
  }
  const model::ModelConfig& config() const override { return session_.config(); }
  const checkpoint::TrainingState& state() const override { return session_.state(); }

 private:
  TrainingOptions options_;
  TrainingSession<T> session_;
};

}  // namespace

std::unique_ptr<Trainer> Trainer::create(const comm::ProcessGrid& grid, TrainingOptions options) {
  ModelSource source = open_start(grid, options);
  if (options.dtype == Dtype::bf16)
    return std::make_unique<TypedTrainer<bf16>>(grid, std::move(options), std::move(source));
  return std::make_unique<TypedTrainer<float>>(grid, std::move(options), std::move(source));
}

}  // namespace tessera::trainer
