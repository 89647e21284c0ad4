// SPDX-License-Identifier: Apache-2.0
// From times and work to rates and shares of roofs; the step; tables and JSON.
#include <nlohmann/json.hpp>

#include "base/block_distribution.hpp"
#include "base/version.hpp"
#include "bench.hpp"
#include "tessera/model/parameter_units.hpp"
#include "tessera/study/traffic.hpp"
#include "tessera/trainer/random_steps.hpp"

namespace tessera::apps {
namespace {

using nlohmann::ordered_json;

double as_double(std::int64_t value) { return static_cast<double>(value); }

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
  return {mean(roofs.f32_product),    mean(roofs.bf16_product), mean(roofs.f32_registers),
          mean(roofs.bf16_registers), mean(roofs.memory),       mean(roofs.message)};
}

/// All units, as often as a step gathers and sums them.
Work travel_work(StepPhase phase, const comm::ProcessGrid& grid, const BenchShape& shape) {
  const bool shares_memory = grid.node().size() == grid.world().size();
  Work sum;
  for (const model::ParameterUnit& unit : parameter_units(shape.config)) {
    double whole = study::unit_elements(unit);
    const int num_ranks = unit.is_expert ? grid.replica().size() : grid.world().size();
    if (unit.is_expert) whole /= grid.expert().size();
    const bool gathers = phase == StepPhase::gather;
    const study::UnitPasses passes = study::passes_of(shape.config, unit);
    const Work work =
        gathers ? study::gather_work(whole, num_ranks, shape.element_bytes(), shares_memory)
                : study::reduce_work(whole, num_ranks, shares_memory);
    const double times = gathers ? passes.gathers : passes.sums;
    sum += {0.0, times * work.memory_bytes, times * work.message_bytes};
  }
  return sum;
}

/// What this rank does in a phase of a step; empty where only the time is of interest.
Work phase_work(StepPhase phase, const comm::ProcessGrid& grid, const BenchShape& shape) {
  const model::ModelConfig& config = shape.config;
  const std::int64_t sequences =
      BlockDistribution{shape.batch, grid.world().size()}.count(grid.world().rank());
  const std::int64_t tokens = sequences * shape.length;
  const double rows = as_double(tokens * config.router.options.top_k);
  Work sum;
  switch (phase) {
    case StepPhase::expert_forward:
    case StepPhase::expert_backward:
      for (const bool has_experts : config.layer_has_experts) {
        if (!has_experts) continue;
        sum +=
            study::expert_work(config, rows, as_double(config.num_experts) / grid.expert().size(),
                               shape.element_bytes(), phase == StepPhase::expert_backward);
      }
      break;
    case StepPhase::dispatch_forward:
    case StepPhase::dispatch_backward:
    case StepPhase::combine_forward:
    case StepPhase::combine_backward:
      for (const bool has_experts : config.layer_has_experts) {
        if (!has_experts) continue;
        sum += study::dispatch_work(config, tokens, grid.expert().size(), shape.element_bytes(),
                                    phase);
      }
      break;
    case StepPhase::gather:
    case StepPhase::reduce_scatter: return travel_work(phase, grid, shape);
    case StepPhase::attention_forward:
    case StepPhase::attention_backward: {
      const bool backward = phase == StepPhase::attention_backward;
      sum.flops = (backward ? 2.0 : 1.0) * study::projection_flops(config, tokens, "self_attn.");
      for (const std::int64_t window : config.layer_window) {
        sum.flops += study::attention_work(config, sequences, shape.length, window,
                                           shape.element_bytes(), backward)
                         .flops;
      }
      break;
    }
    case StepPhase::dense_mlp_forward:
      sum.flops = study::projection_flops(config, tokens, "mlp.");
      break;
    case StepPhase::dense_mlp_backward:
      sum.flops = 2.0 * study::projection_flops(config, tokens, "mlp.");
      break;
    case StepPhase::head: return study::head_work(config, tokens, shape.element_bytes());
    case StepPhase::optimizer: {
      // Besides the update: the gradients' norm.
      const auto owned = static_cast<std::int64_t>(num_parameters(config) / grid.world().size());
      sum += study::adamw_work(owned, shape.dtype == Dtype::f32 ? 0 : owned);
      sum += {0.0, 4.0 * static_cast<double>(owned), 0.0};
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

ordered_json to_json(const KernelRow& row) {
  ordered_json entry{{"name", row.name}, {"ms", to_json(row.ms)}};
  if (!row.unit.empty()) {
    entry["rate"] = to_json(row.rate);
    entry["unit"] = row.unit;
    entry["roof"] = row.roof;
    entry["share_of_roof"] = row.share;
  }
  if (row.gflops > 0.0) {
    entry["gflops"] = row.gflops;
    entry["share_of_registers"] = row.share_of_registers;
  }
  if (row.share_of_step > 0.0) entry["share_of_step"] = row.share_of_step;
  return entry;
}

ordered_json to_json(const std::vector<KernelRow>& rows) {
  ordered_json json = ordered_json::array();
  for (const KernelRow& row : rows) json.push_back(to_json(row));
  return json;
}

}  // namespace

KernelRow make_row(const comm::Communicator& world, const std::string& name, double seconds,
                   const Work& work, const Roofs& roofs, Dtype dtype) {
  KernelRow row;
  row.name = name;
  row.ms = trainer::over_ranks(world, 1e3 * seconds);
  const Roofs mean = mean_roofs(world, roofs);
  const Bound bound = bound_of(work, mean, dtype);
  const double rate = seconds > 0.0 ? bound.amount / seconds / 1e9 : 0.0;
  row.rate = trainer::over_ranks(world, rate);
  row.share = trainer::over_ranks(world, seconds > 0.0 ? bound.seconds / seconds : 0.0).mean;
  row.roof = bound.roof;
  row.gflops = trainer::over_ranks(world, seconds > 0.0 ? work.flops / seconds / 1e9 : 0.0).mean;
  row.share_of_registers = 1e9 * row.gflops / mean.registers(dtype);
  if (bound.amount > 0.0) row.unit = row.roof == "product" ? "GFLOP/s" : "GB/s";
  return row;
}

StepReport measure_step(const comm::ProcessGrid& grid, const BenchShape& shape,
                        const Roofs& roofs) {
  const comm::Communicator& world = grid.world();
  trainer::RandomSteps options;
  options.dtype = shape.dtype, options.batch = shape.batch, options.length = shape.length;
  options.num_steps = shape.num_repeats;
  options.recompute = shape.recompute;
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
  const Work all{study::step_flops(shape.config, sequences, shape.length), 0.0, 0.0};
  rows.push_back(make_row(world, "step", profile.step_ms.mean / 1e3, all, roofs, shape.dtype));
  rows.back().ms = profile.step_ms;
  rows.back().share_of_step = 1.0;
  return {rows, profile.traffic};
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
  std::string text = fmt::format(
      "{:<42} {:>10} {:>10} {:>10} {:>8} {:>10} {:<8} {:>8} {:<8} {:>8}\n", title, "min [ms]",
      "mean [ms]", "max [ms]", "of step", "rate", "", "of roof", "roof", "of regs");
  for (const KernelRow& row : rows) {
    const std::string rate = row.unit.empty() ? "" : fmt::format("{:.2f}", row.rate.mean);
    std::string line =
        fmt::format("{:<42} {:>10.3f} {:>10.3f} {:>10.3f} {:>8} {:>10} {:<8} {:>8} {:<8} {:>8}",
                    row.name, row.ms.min, row.ms.mean, row.ms.max, percent(row.share_of_step), rate,
                    row.unit, percent(row.share), row.roof, percent(row.share_of_registers));
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string expert_table(const std::vector<ExpertRow>& rows) {
  std::vector<KernelRow> lines;
  for (const ExpertRow& row : rows) {
    for (const KernelRow& each : {row.forward, row.backward, row.both}) lines.push_back(each);
  }
  return kernel_table("experts", lines);
}

std::string bench_json(const std::string& description, const BenchShape& shape, int num_ranks,
                       const BenchReport& report) {
  ordered_json json{{"tessera", version_string()},
                    {"model", description},
                    {"dtype", shape.dtype == Dtype::bf16 ? "bf16" : "f32"},
                    {"num_ranks", num_ranks},
                    {"batch", shape.batch},
                    {"sequence_length", shape.length},
                    {"repeats", shape.num_repeats},
                    {"machine", ordered_json::array()}};
  for (const MachineRow& row : report.machine) {
    json["machine"].push_back(
        {{"name", row.name}, {"unit", row.unit}, {"value", to_json(row.value)}});
  }
  json["kernels"] = to_json(report.kernels);
  json["experts"] = ordered_json::array();
  for (const ExpertRow& row : report.experts) {
    json["experts"].push_back({{"tokens", row.tokens},
                               {"forward", to_json(row.forward)},
                               {"backward", to_json(row.backward)},
                               {"both", to_json(row.both)}});
  }
  json["step"] = to_json(report.step.rows);
  json["traffic"] = ordered_json::array();
  for (const trainer::StepProfile::TrafficRow& row : report.step.traffic) {
    json["traffic"].push_back({{"communicator", row.communicator},
                               {"logical_mib", to_json(row.logical_mib)},
                               {"moved_mib", to_json(row.moved_mib)},
                               {"hidden", row.hidden}});
  }
  return json.dump(1) + '\n';
}

}  // namespace tessera::apps
