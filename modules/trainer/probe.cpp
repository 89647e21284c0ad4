// SPDX-License-Identifier: Apache-2.0
#include <numeric>
#include <tessera/checkpoint/report_file.hpp>
#include <tessera/trainer/probe.hpp>

#include "base/block_distribution.hpp"
#include "comm/agree.hpp"
#include "tessera/model/transformer.hpp"
#include "tessera/trainer/batch_reader.hpp"
#include "tessera/trainer/token_data.hpp"
#include "tessera/trainer/train_step.hpp"
#include "tessera/zero3/grad_norm.hpp"
#include "unit_parts.hpp"

namespace tessera::trainer {
namespace {

using checkpoint::ReportFile;

/// This rank's rows of the given tokens.
struct ProbeBatch {
  model::Batch batch;
  std::int64_t num_rows = 0;   ///< over all ranks
  std::int64_t first_row = 0;  ///< of this rank
};

ProbeBatch read_batch(const comm::ProcessGrid& grid, std::int64_t vocab_size,
                      const ProbeOptions& options) {
  TokenDataOptions data_options;
  data_options.vocab_size = vocab_size;
  data_options.labels.path = options.labels;
  data_options.stream_is_one_row = true;
  const TokenData data = TokenData::open(grid.world(), options.tokens, data_options);
  const BlockDistribution rows{data.num_sequences(), grid.world().size()};
  std::vector<std::int64_t> sequences(static_cast<std::size_t>(data.num_sequences()));
  std::iota(sequences.begin(), sequences.end(), std::int64_t{0});
  const StepBatches read = BatchReader(grid.world(), data, vocab_size, 0).read(sequences);
  comm::agree(grid.world(), "read tokens", read.error);
  return {read.batches.front(), data.num_sequences(), rows.begin(grid.world().rank())};
}

/// Writes one shard of every unit under /<group>/<tensor name>.
template <class T, class Shard>
void write_units(ReportFile& report, const char* group, const zero3::ParameterStore<T>& store,
                 const Shard& shard_of) {
  for (std::size_t i = 0; i < store.num_units(); ++i) {
    const zero3::Unit& unit = store.unit(i);
    const auto host = kernel::host_copy(shard_of(unit));
    const UnitParts parts = trainable(unit);
    report.write_parameters(group, parts.parameters, parts.slices,
                            std::span<const float>(host.data(), host.size()));
  }
}

template <class T>
void write_logits(ReportFile& report, model::Transformer<T>& model, const ProbeBatch& probe) {
  const std::int64_t vocab = model.config().vocab_size, length = probe.batch.length;
  std::vector<float> logits(static_cast<std::size_t>(probe.batch.num_tokens() * vocab));
  model::PassOptions pass;
  pass.with_gradient = false;
  pass.logits = logits.data();
  model.pass(probe.batch, pass);
  report.write_part("logits", {probe.num_rows, length, vocab}, probe.first_row * length * vocab,
                    logits);
}

template <class T>
ProbeResult run(const comm::ProcessGrid& grid, ModelSource& source, const ProbeOptions& options) {
  ProbeResult result;
  require_aux_loss(source.config, options.aux_coefficient);
  const ProbeBatch probe = read_batch(grid, source.config.vocab_size, options);
  zero3::ParameterStore<T> store = make_store<T>(grid, source.config);
  result.load = load_parameters(grid, source, store);
  model::Transformer<T> model(grid, source.config, store);
  const std::span batches(&probe.batch, 1);

  ReportFile report(grid.world(), options.output);
  write_logits(report, model, probe);
  const StepOutcome first = compute_gradient(grid, model, store, batches, options.aux_coefficient);
  result.loss = first.loss;
  result.num_targets = first.num_targets;
  result.grad_norm = zero3::global_grad_norm(grid.world(), store, false).norm;
  report.write_scalar("loss", result.loss);
  report.write_scalar("grad_norm", result.grad_norm);
  if (options.aux_coefficient != 0.0) report.write_scalar("aux_loss", first.aux_loss);
  write_units(report, "grad", store, [](const zero3::Unit& unit) { return unit.gradient(); });

  StepOptions step;
  step.learning_rate = options.learning_rate;
  step.max_grad_norm = options.max_grad_norm;
  step.aux_coefficient = options.aux_coefficient;
  for (std::int64_t i = 0; i < options.num_steps; ++i) {
    const StepOutcome outcome = train_step(grid, model, store, batches, options.optimizer, step);
    if (outcome.updated) ++step.optimizer_step;
    result.losses.push_back(outcome.loss);
  }
  if (options.num_steps > 0) {
    report.write_values("losses", result.losses);
    write_units(report, "param", store, [](const zero3::Unit& unit) { return unit.master(); });
  }
  report.commit();
  return result;
}

}  // namespace

ProbeResult run_probe(const comm::ProcessGrid& grid, ModelSource& model,
                      const ProbeOptions& options) {
  return options.dtype == Dtype::bf16 ? run<bf16>(grid, model, options)
                                      : run<float>(grid, model, options);
}

}  // namespace tessera::trainer
