// SPDX-License-Identifier: Apache-2.0
// From times and work to rates and shares of roofs; the step; tables and JSON.
#include <nlohmann/json.hpp>

#include "base/block_distribution.hpp"
#include "base/version.hpp"
#include "bench.hpp"
#include "tessera/trainer/random_steps.hpp"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

/// The roof that needs longest for the work.
struct Bound {
  double seconds = 0.0;
  double amount = 0.0;  ///< FLOP or bytes
  const char* roof = "";
};

Bound bound_of(const Work& work, const Roofs& roofs, Dtype dtype) {
  Bound bound;
  const auto consider = [&](double amount, double rate, const char* roof) {
    if (amount > 0.0 && rate > 0.0 && amount / rate > bound.seconds) {
      bound = {amount / rate, amount, roof};
    }
  };
  consider(work.flops, roofs.product(dtype), "product");
  consider(work.memory_bytes, roofs.memory, "memory");
  consider(work.message_bytes, roofs.message, "message");
  return bound;
}

/// Which roof binds must be the same everywhere, or the rates of the ranks cannot be compared.
Roofs mean_roofs(const comm::Communicator& world, const Roofs& roofs) {
  const auto mean = [&](double value) { return trainer::over_ranks(world, value).mean; };
  return {mean(roofs.f32_product), mean(roofs.bf16_product), mean(roofs.memory),
          mean(roofs.message)};
}

/// What this rank does in a phase of a step; empty where only the time is of interest.
Work phase_work(StepPhase phase, const comm::ProcessGrid& grid, const BenchShape& shape) {
  const model::ModelConfig& config = shape.config;
  const std::int64_t sequences =
      BlockDistribution{shape.batch, grid.world().size()}.count(grid.world().rank());
  const std::int64_t tokens = sequences * shape.length;
  Work sum;
  const auto add = [&](const Work& work) {
    sum.flops += work.flops;
    sum.memory_bytes += work.memory_bytes;
  };
  switch (phase) {
    case StepPhase::expert_forward:
    case StepPhase::expert_backward:
      for (const bool has_experts : config.layer_has_experts) {
        if (!has_experts) continue;
        add(expert_work(config, tokens, grid.expert().size(), shape.element_bytes(),
                        phase == StepPhase::expert_backward));
      }
      break;
    case StepPhase::attention_forward:
    case StepPhase::attention_backward: {
      const bool backward = phase == StepPhase::attention_backward;
      sum.flops = (backward ? 2.0 : 1.0) * projection_flops(config, tokens, "self_attn.");
      for (const std::int64_t window : config.layer_window) {
        sum.flops +=
            attention_work(config, sequences, shape.length, window, shape.element_bytes(), backward)
                .flops;
      }
      break;
    }
    case StepPhase::dense_mlp_forward: sum.flops = projection_flops(config, tokens, "mlp."); break;
    case StepPhase::dense_mlp_backward:
      sum.flops = 2.0 * projection_flops(config, tokens, "mlp.");
      break;
    case StepPhase::head: return head_work(config, tokens, shape.element_bytes());
    case StepPhase::optimizer: {
      // Besides the update: the gradients' norm.
      const auto owned = static_cast<std::int64_t>(num_parameters(config) / grid.world().size());
      add(adamw_work(owned, shape.dtype == Dtype::f32 ? 0 : owned));
      add({0.0, 4.0 * static_cast<double>(owned), 0.0});
      break;
    }
    default: break;
  }
  return sum;
}

std::string percent(double share) {
  return share > 0.0 ? fmt::format("{:.1f}%", 100.0 * share) : "";
}

ordered_json to_json(const OverRanks& value) {
  return {{"min", value.min}, {"mean", value.mean}, {"max", value.max}};
}

ordered_json to_json(const std::vector<KernelRow>& rows) {
  ordered_json json = ordered_json::array();
  for (const KernelRow& row : rows) {
    ordered_json entry{{"name", row.name}, {"ms", to_json(row.ms)}};
    if (!row.unit.empty()) {
      entry["rate"] = to_json(row.rate);
      entry["unit"] = row.unit;
      entry["roof"] = row.roof;
      entry["share_of_roof"] = row.share;
    }
    if (row.share_of_step > 0.0) entry["share_of_step"] = row.share_of_step;
    json.push_back(std::move(entry));
  }
  return json;
}

}  // namespace

KernelRow make_row(const comm::Communicator& world, const std::string& name, double seconds,
                   const Work& work, const Roofs& roofs, Dtype dtype) {
  KernelRow row;
  row.name = name;
  row.ms = trainer::over_ranks(world, 1e3 * seconds);
  const Bound bound = bound_of(work, mean_roofs(world, roofs), dtype);
  const double rate = seconds > 0.0 ? bound.amount / seconds / 1e9 : 0.0;
  row.rate = trainer::over_ranks(world, rate);
  row.share = trainer::over_ranks(world, seconds > 0.0 ? bound.seconds / seconds : 0.0).mean;
  row.roof = bound.roof;
  if (bound.amount > 0.0) row.unit = row.roof == "product" ? "GFLOP/s" : "GB/s";
  return row;
}

std::vector<KernelRow> measure_step(const comm::ProcessGrid& grid, const BenchShape& shape,
                                    const Roofs& roofs) {
  const comm::Communicator& world = grid.world();
  trainer::RandomSteps options;
  options.dtype = shape.dtype, options.batch = shape.batch, options.length = shape.length;
  options.num_steps = shape.num_repeats;
  const trainer::StepProfile profile = profile_random_steps(grid, shape.config, options);
  std::vector<KernelRow> rows;
  for (const trainer::StepProfile::Row& phase : profile.rows) {
    KernelRow row = make_row(world, to_string(phase.phase), phase.ms.mean / 1e3,
                             phase_work(phase.phase, grid, shape), roofs, shape.dtype);
    row.ms = phase.ms;
    row.share_of_step = phase.share;
    rows.push_back(row);
  }
  const std::int64_t sequences = BlockDistribution{shape.batch, world.size()}.count(world.rank());
  const Work all{step_flops(shape.config, sequences, shape.length), 0.0, 0.0};
  rows.push_back(make_row(world, "step", profile.step_ms.mean / 1e3, all, roofs, shape.dtype));
  rows.back().ms = profile.step_ms;
  rows.back().share_of_step = 1.0;
  return rows;
}

std::string machine_table(const std::vector<MachineRow>& rows) {
  std::string text = fmt::format("{:<42} {:>10} {:>10} {:>10}\n", "machine", "min", "mean", "max");
  for (const MachineRow& row : rows) {
    text += fmt::format("{:<42} {:>10.2f} {:>10.2f} {:>10.2f} {}\n", row.name, row.value.min,
                        row.value.mean, row.value.max, row.unit);
  }
  return text;
}

std::string kernel_table(const std::string& title, const std::vector<KernelRow>& rows) {
  std::string text =
      fmt::format("{:<42} {:>10} {:>10} {:>10} {:>8} {:>10} {:<8} {:>8} {}\n", title, "min [ms]",
                  "mean [ms]", "max [ms]", "of step", "rate", "", "of roof", "roof");
  for (const KernelRow& row : rows) {
    const std::string rate = row.unit.empty() ? "" : fmt::format("{:.2f}", row.rate.mean);
    std::string line =
        fmt::format("{:<42} {:>10.3f} {:>10.3f} {:>10.3f} {:>8} {:>10} {:<8} {:>8} {}", row.name,
                    row.ms.min, row.ms.mean, row.ms.max, percent(row.share_of_step), rate, row.unit,
                    percent(row.share), row.roof);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string bench_json(const std::string& description, const BenchShape& shape, int num_ranks,
                       const std::vector<MachineRow>& machine,
                       const std::vector<KernelRow>& kernels, const std::vector<KernelRow>& step) {
  ordered_json json{{"tessera", version_string()},
                    {"model", description},
                    {"dtype", shape.dtype == Dtype::bf16 ? "bf16" : "f32"},
                    {"num_ranks", num_ranks},
                    {"batch", shape.batch},
                    {"sequence_length", shape.length},
                    {"repeats", shape.num_repeats},
                    {"machine", ordered_json::array()}};
  for (const MachineRow& row : machine) {
    json["machine"].push_back(
        {{"name", row.name}, {"unit", row.unit}, {"value", to_json(row.value)}});
  }
  json["kernels"] = to_json(kernels);
  json["step"] = to_json(step);
  return json.dump(1) + '\n';
}

}  // namespace tessera::apps
