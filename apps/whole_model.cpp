// SPDX-License-Identifier: Apache-2.0
#include "whole_model.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "base/progress.hpp"
#include "command.hpp"

namespace tessera::apps {
namespace {

using checkpoint::CopyPlan;

constexpr std::int64_t writing_buffer_bytes = 16 << 20;

/// "4.00 GiB", or the smallest and the largest.
std::string range_text(const std::vector<CopyPlan>& plans, std::int64_t CopyPlan::*bytes) {
  std::vector<double> values;
  for (const CopyPlan& plan : plans) values.push_back(static_cast<double>(plan.*bytes));
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const std::string first = format_bytes(*least), last = format_bytes(*most);
  return first == last ? first : first + " to " + last;
}

void print_ranks(const WholeModel& whole, int num_ranks) {
  std::vector<CopyPlan> plans = plan_copy(whole.source(), whole.stored, num_ranks);
  double total = 0.0;
  for (CopyPlan& plan : plans) {
    plan.memory_bytes += writing_buffer_bytes;
    total += static_cast<double>(plan.read_bytes);
  }
  fmt::print("\nreads       {} by {} ranks, {} on each\n", format_bytes(total), num_ranks,
             range_text(plans, &CopyPlan::read_bytes));
  fmt::print("memory      {} on each rank, the libraries' own apart\n",
             range_text(plans, &CopyPlan::memory_bytes));
}

}  // namespace

WholeModel open_whole_model(const comm::Communicator& world, const std::string& path,
                            const checkpoint::KeyOptions& keys) {
  WholeModel whole = trainer::whole_model(trainer::open_model(world, path, keys));
  log_info("{}", model::describe(whole.model.config));
  return whole;
}

checkpoint::CopyReport copy_model(const comm::ProcessGrid& grid, const WholeModel& whole,
                                  const checkpoint::PortionConsumer& consumer, bool verify,
                                  const char* what) {
  require_tied(grid, whole.model);
  std::int64_t total_bytes = 0;
  for (const Parameter& parameter : whole.stored)
    total_bytes += whole.source().stored_bytes(parameter);
  ProgressBar bar(what, total_bytes, total_bytes);
  const auto tell = [&](std::int64_t num_done, std::int64_t num_portions) {
    bar.at(total_bytes / num_portions * num_done);
  };
  return copy_parameters(grid, whole.source(), whole.stored, consumer, verify, tell);
}

void print_copied(const comm::Communicator& world, const std::string& output,
                  const checkpoint::LoadReport& report, std::int64_t written_bytes,
                  double seconds) {
  std::vector<std::int64_t> sums{report.read_bytes, report.exchanged_bytes, written_bytes};
  world.all_reduce("copied bytes", std::span<std::int64_t>(sums), comm::ReduceOp::sum);
  if (world.rank() != 0) return;
  const auto text = [&](std::size_t i) { return format_bytes(static_cast<double>(sums[i])); };
  fmt::print("{}: read {}, exchanged {} between ranks, wrote {} in {:.1f} s ({}/s)\n", output,
             text(0), text(1), text(2), seconds,
             format_bytes(static_cast<double>(sums[0]) / std::max(seconds, 1e-9)));
}

int print_dry_run(const comm::Communicator& world, const std::string& path,
                  const checkpoint::KeyOptions& keys,
                  const std::function<std::string(const WholeModel&)>& written) {
  trainer::ModelSource model = trainer::describe_model(world, path, keys);
  const std::string description = model::describe(model.config);
  const checkpoint::KeyReport report =
      compare_keys(*model.source, model::all_parameters(model.units), model.keys);
  std::string text = fmt::format("checkpoint  {} ({})\nmodel       {}\n\n{}", path,
                                 model.source->kind(), description, report.describe());
  if (world.rank() == 0) fmt::print("{}", text);
  if (!report.ok()) {
    log_warning("the checkpoint does not fit the model");
    return exit_code(ErrorKind::keys);
  }
  WholeModel whole = trainer::whole_model(std::move(model));
  for (const Parameter& parameter : whole.stored)
    whole.model.origins[parameter.name] = whole.source().origin(parameter);
  const std::string would_write = written(whole);
  if (world.rank() != 0) return 0;
  print_ranks(whole, world.size());
  fmt::print("writes      {}\n", would_write);
  return 0;
}

}  // namespace tessera::apps
