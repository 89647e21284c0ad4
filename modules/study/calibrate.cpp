// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tessera/study/calibrate.hpp>
#include <tessera/study/describe_time.hpp>
#include <tessera/study/measure.hpp>
#include <tessera/study/work.hpp>

#include "base/version.hpp"
#include "comm/shared_memory.hpp"
#include "measured_messages.hpp"
#include "tessera/trainer/random_steps.hpp"

namespace tessera::study {
namespace {

/// A small gpt-oss whose parts take long enough to be timed.
model::ModelConfig reference_model(bool is_trial) {
  const int size = is_trial ? 64 : 768;
  return model::parse_config(
      fmt::format(R"({{"model_type": "gpt_oss", "hidden_size": {0}, "intermediate_size": {0},
        "num_local_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 4,
        "vocab_size": {1}, "num_attention_heads": {2}, "num_key_value_heads": {3},
        "head_dim": {4}, "pad_token_id": null}})",
                  size, is_trial ? 256 : 8192, is_trial ? 4 : 12, is_trial ? 2 : 4,
                  is_trial ? 16 : 64),
      "the reference model");
}

class Calibration {
 public:
  Calibration(const comm::ProcessGrid& grid, const CalibrateOptions& options)
      : grid_(grid), options_(options), config_(reference_model(options.is_trial)) {}

  Machine run() {
    machine_.name = options_.name;
    machine_.ranks_per_node = grid_.node().size();
    machine_.shares_memory =
        grid_.node().size() > 1 && comm::SharedMemory::allocate(grid_.node(), "calibrate", 4096);
    part("latency and bandwidth");
    tiers();
    part("collectives");
    machine_.collectives = measure_collectives(grid_, message_sizes(), options_.num_repeats);
    part("memory");
    machine_.triad_bytes_per_s = lowest(sample_triad(grid_.world(), options_.num_repeats));
    part("products");
    products();
    part("attention");
    attention();
    part("file system");
    files();
    part("a training step");
    step();
    machine_.description = fmt::format("tessera calibrate, {}, {}, {}", grid_.describe(),
                                       to_string(options_.dtype), version_string());
    return machine_;
  }

 private:
  static constexpr int num_parts = 7;

  void part(const char* name) {
    ++part_;
    if (options_.progress) options_.progress(name, part_, num_parts);
  }
  std::vector<std::int64_t> message_sizes() const {
    if (options_.is_trial) return {4 << 10, 64 << 10};
    return {4 << 10, 64 << 10, 1 << 20, 16 << 20};
  }
  /// Rates of the slowest rank.
  Figure lowest(std::vector<double> rates) const {
    grid_.world().all_reduce("slowest rank", std::span(rates), comm::ReduceOp::min);
    return Figure::median_of(rates);
  }
  Figure rate(double amount, const std::vector<double>& seconds) const {
    std::vector<double> rates;
    for (const double each : slowest(grid_.world(), seconds)) rates.push_back(amount / each);
    return Figure::median_of(rates);
  }

  void tiers() {
    const MeasuredTiers tiers = measure_tiers(grid_, options_.num_repeats);
    machine_.network = tiers.network;
    if (tiers.node) {
      machine_.node = *tiers.node;
    } else {  // a node of one rank sends itself nothing; the file needs a tier
      const std::string none = "assumed: one rank per node, so no message is within one";
      machine_.node.latency_s = Figure::published(1e-6, none);
      machine_.node.bandwidth_bytes_per_s = Figure::published(1e10, none);
    }
  }

  void products() {
    constexpr std::int64_t num_experts = 4;
    const std::vector<std::int64_t> sizes = options_.is_trial
                                                ? std::vector<std::int64_t>{4, 16}
                                                : std::vector<std::int64_t>{8, 32, 128, 512, 2048};
    for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) {
      for (const std::int64_t rows : sizes) {
        const KernelTimes times = time_experts(grid_.world(), config_, dtype, num_experts,
                                               rows * num_experts, options_.num_repeats);
        const auto flops = [&](bool backward) {
          return expert_work(config_, static_cast<double>(rows * num_experts),
                             static_cast<double>(num_experts), 0, backward)
              .flops;
        };
        machine_.products.push_back({dtype, static_cast<double>(rows),
                                     rate(flops(false), times.forward),
                                     rate(flops(true), times.backward)});
      }
    }
  }

  void attention() {
    const std::vector<std::int64_t> lengths = options_.is_trial
                                                  ? std::vector<std::int64_t>{16, 32}
                                                  : std::vector<std::int64_t>{256, 1024, 2048};
    for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) {
      for (const std::int64_t length : lengths) {
        const std::int64_t sequences = lengths.back() / length;
        const KernelTimes times = time_attention(grid_.world(), config_, dtype, sequences, length,
                                                 0, options_.num_repeats);
        const auto flops = [&](bool backward) {
          return attention_work(config_, sequences, length, 0, 0, backward).flops;
        };
        machine_.attention.push_back({dtype, mean_visible_keys(length, 0),
                                      rate(flops(false), times.forward),
                                      rate(flops(true), times.backward)});
      }
    }
  }

  void files() {
    std::vector<double> write, read;
    const double per_node =
        static_cast<double>(grid_.node().size()) / static_cast<double>(grid_.world().size());
    for (int i = 0; i < 3; ++i) {
      const FileRates rates = measure_file_rates(
          grid_.world(), options_.is_trial ? std::int64_t{1} << 20 : std::int64_t{64} << 20);
      write.push_back(rates.write * per_node);
      read.push_back(rates.read * per_node);
    }
    machine_.file_write_bytes_per_s = Figure::median_of(write);
    machine_.file_read_bytes_per_s = Figure::median_of(read);
  }

  RunShape step_shape() const {
    RunShape shape;
    shape.num_ranks = grid_.world().size();
    shape.expert = grid_.expert().size();
    shape.ranks_per_node = grid_.node().size();
    shape.shares_memory = machine_.shares_memory;
    shape.batch = shape.num_ranks * (options_.is_trial ? 1 : 2);
    shape.length = options_.is_trial ? 16 : 512;
    shape.dtype = options_.dtype;
    return shape;
  }

  void step() {
    const RunShape shape = step_shape();
    trainer::RandomSteps steps;
    steps.dtype = shape.dtype, steps.batch = shape.batch, steps.length = shape.length;
    steps.num_steps = options_.is_trial ? 1 : 3;
    std::vector<trainer::StepProfile> profiles;
    for (int i = 0; i < (options_.is_trial ? 1 : 5); ++i) {
      profiles.push_back(profile_random_steps(grid_, config_, steps));
    }
    const StepTime model = plan_time(config_, shape, machine_, Algorithm::hierarchical);
    set_overlap(profiles, model);
    for (std::size_t i = 0; i < num_step_phases; ++i)
      set_factor(static_cast<StepPhase>(i), profiles, model);
  }

  /// Seconds of a phase per step in each profile. The rank that is last somewhere waits least.
  static std::vector<double> measured(const std::vector<trainer::StepProfile>& profiles,
                                      StepPhase phase, bool without_waiting) {
    std::vector<double> seconds;
    for (const trainer::StepProfile& profile : profiles) {
      for (const auto& row : profile.rows) {
        if (row.phase == phase)
          seconds.push_back(1e-3 * (without_waiting ? row.ms.min : row.ms.mean));
      }
    }
    return seconds;
  }

  /// What of the communication was not waited for.
  void set_overlap(const std::vector<trainer::StepProfile>& profiles, const StepTime& model) {
    double waited = 0.0;
    for (const StepPhase phase : {StepPhase::gather_wait, StepPhase::reduce_scatter_wait}) {
      const std::vector<double> seconds = measured(profiles, phase, true);
      if (!seconds.empty()) waited += median(seconds);
    }
    double planned = 0.0;
    for (const StepPhase phase : {StepPhase::gather_wait, StepPhase::reduce_scatter_wait}) {
      planned += model.of(phase).sum();  // without overlap: all of it
    }
    machine_.overlap = planned > 0.0 ? std::clamp(1.0 - waited / planned, 0.0, 1.0) : 0.0;
  }

  void set_factor(StepPhase phase, const std::vector<trainer::StepProfile>& profiles,
                  const StepTime& model) {
    const PhaseSeconds& planned = model.of(phase);
    // Beside messages that take ten times as long nothing can be told of kernels.
    if (planned.kernels.sum() < 0.1 * (planned.latency_s + planned.bandwidth_s)) return;
    const bool is_exchange =
        phase == StepPhase::dispatch_forward || phase == StepPhase::dispatch_backward ||
        phase == StepPhase::combine_forward || phase == StepPhase::combine_backward ||
        phase == StepPhase::reduce_scatter;
    std::vector<double> factors;
    for (const double seconds : measured(profiles, phase, is_exchange)) {
      const double kernels = seconds - planned.latency_s - planned.bandwidth_s;
      if (planned.kernels.sum() > 0.0) factors.push_back(kernels / planned.kernels.sum());
    }
    if (factors.empty()) return;
    for (double& factor : factors) factor = std::max(factor, 1e-3);
    machine_.factors[phase] = Figure::median_of(factors);
  }

  const comm::ProcessGrid& grid_;
  const CalibrateOptions& options_;
  model::ModelConfig config_;
  Machine machine_;
  int part_ = 0;
};

std::string interval(const Figure& figure, double unit) {
  return fmt::format("{:>10.4g}  [{:.4g}, {:.4g}]", figure.value / unit, figure.low / unit,
                     figure.high / unit);
}

std::string describe(const char* name, const Tier& tier) {
  std::string text = fmt::format("{:<34} {} us\n{:<34} {} GB/s\n", fmt::format("{} latency", name),
                                 interval(tier.latency_s, 1e-6), fmt::format("{} bandwidth", name),
                                 interval(tier.bandwidth_bytes_per_s, 1e9));
  if (tier.node_bandwidth_bytes_per_s) {
    text += fmt::format("{:<34} {} GB/s\n", fmt::format("{} bandwidth of all ranks", name),
                        interval(*tier.node_bandwidth_bytes_per_s, 1e9));
  }
  return text;
}

}  // namespace

Machine calibrate(const comm::ProcessGrid& grid, const CalibrateOptions& options) {
  Machine machine = Calibration(grid, options).run();
  // All ranks have the same file, whatever each has timed.
  return parse_machine(grid.world().broadcast_string("machine file", to_json(machine), 0),
                       "the calibration");
}

std::string describe(const Machine& machine) {
  std::string text = fmt::format("{:<34} {:>10}  95 % interval\n", machine.name, "median");
  text += describe("node", machine.node);
  if (machine.network) text += describe("network", *machine.network);
  text += fmt::format("{:<34} {} GB/s\n", "memory triad of a rank",
                      interval(machine.triad_bytes_per_s, 1e9));
  const auto rates = [&](const char* name, const char* size, const std::vector<RateAt>& table) {
    for (const RateAt& rate : table) {
      text +=
          fmt::format("{:<34} {} GFLOP/s, backward {:.4g}\n",
                      fmt::format("{} {}, {:.4g} {}", to_string(rate.dtype), name, rate.size, size),
                      interval(rate.forward_flop_per_s, 1e9), rate.backward_flop_per_s.value / 1e9);
    }
  };
  rates("products", "rows", machine.products);
  rates("attention", "keys", machine.attention);
  text += fmt::format("{:<34} {} GB/s\n{:<34} {} GB/s\n", "file write of a node",
                      interval(machine.file_write_bytes_per_s, 1e9), "file read of a node",
                      interval(machine.file_read_bytes_per_s, 1e9));
  for (const auto& [phase, figure] : machine.factors) {
    text += fmt::format("{:<34} {}\n", fmt::format("factor of {}", to_string(phase)),
                        interval(figure, 1.0));
  }
  return text + fmt::format("{:<34} {:>10.3g}\n", "overlap", machine.overlap);
}

}  // namespace tessera::study
