// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tessera/trainer/step_profile.hpp>

#include "base/error.hpp"
#include "comm/agree.hpp"

namespace tessera::trainer {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const OverRanks& value) {
  return {{"min", value.min}, {"mean", value.mean}, {"max", value.max}};
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) fail(ErrorKind::file, "cannot write {}: {}", path.string(), std::strerror(errno));
}

}  // namespace

OverRanks over_ranks(const comm::Communicator& world, double value) {
  const std::vector<double> all = world.all_gather_value("value of each rank", value);
  OverRanks result{all.front(), 0.0, all.front()};
  for (const double each : all) {
    result.min = std::min(result.min, each);
    result.max = std::max(result.max, each);
    result.mean += each / static_cast<double>(all.size());
  }
  return result;
}

StepProfile step_profile(const comm::Communicator& world, const PhaseTimer& timer) {
  StepProfile profile;
  profile.num_ranks = world.size();
  profile.num_steps = timer.num_steps();
  if (profile.num_steps == 0) return profile;
  const double to_ms = 1e3 / static_cast<double>(profile.num_steps);
  profile.step_ms = over_ranks(world, timer.step_seconds() * to_ms);
  for (std::size_t i = 0; i < num_step_phases; ++i) {
    const auto phase = static_cast<StepPhase>(i);
    const OverRanks ms = over_ranks(world, timer.seconds(phase) * to_ms);
    if (ms.max == 0.0) continue;
    const double step = profile.step_ms.mean;
    profile.rows.push_back({phase, ms, step > 0.0 ? ms.mean / step : 0.0});
  }
  return profile;
}

StepTraffic::StepTraffic(const comm::ProcessGrid& grid) {
  for (const comm::Communicator* each : {&grid.world(), &grid.expert(), &grid.replica()}) {
    if (each->size() > 1) communicators_.push_back(each);
  }
  sums_.resize(communicators_.size());
}

void StepTraffic::begin_step() {
  for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] -= communicators_[i]->traffic();
}

void StepTraffic::end_step() {
  for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += communicators_[i]->traffic();
  ++num_steps_;
}

StepProfile step_profile(const comm::Communicator& world, const PhaseTimer& timer,
                         const StepTraffic& traffic) {
  StepProfile profile = step_profile(world, timer);
  const double to_mib =
      1.0 / (1024.0 * 1024.0 * static_cast<double>(std::max<std::int64_t>(traffic.num_steps(), 1)));
  for (std::size_t i = 0; i < traffic.communicators().size(); ++i) {
    const comm::Traffic& sum = traffic.sum(i);
    const comm::TrafficVolume total = sum.total();
    const double waited = sum.in_flight_s > 0.0 ? sum.waited_s / sum.in_flight_s : 1.0;
    profile.traffic.push_back({traffic.communicators()[i]->name(),
                               over_ranks(world, static_cast<double>(total.logical_bytes) * to_mib),
                               over_ranks(world, static_cast<double>(total.moved_bytes) * to_mib),
                               over_ranks(world, 1.0 - waited).mean});
  }
  return profile;
}

std::string traffic_table(const std::vector<StepProfile::TrafficRow>& rows) {
  if (rows.empty()) return "";
  std::string text = fmt::format("{:<20} {:>10} {:>10} {:>10} {:>8}\n", "traffic [MiB / step]",
                                 "logical", "moved", "", "hidden");
  for (const StepProfile::TrafficRow& row : rows) {
    text += fmt::format("{:<20} {:>10.3f} {:>10.3f} {:>10} {:>7.1f}%\n", row.communicator,
                        row.logical_mib.mean, row.moved_mib.mean, "", 100.0 * row.hidden);
  }
  return text;
}

std::string describe(const StepProfile& profile) {
  std::string text = fmt::format("{:<20} {:>10} {:>10} {:>10} {:>8}\n", "phase [ms per step]",
                                 "min", "mean", "max", "share");
  const auto add = [&](const char* name, const OverRanks& ms, double share) {
    text += fmt::format("{:<20} {:>10.3f} {:>10.3f} {:>10.3f} {:>7.1f}%\n", name, ms.min, ms.mean,
                        ms.max, 100.0 * share);
  };
  for (const StepProfile::Row& row : profile.rows) add(to_string(row.phase), row.ms, row.share);
  add("step", profile.step_ms, profile.num_steps > 0 ? 1.0 : 0.0);
  text += traffic_table(profile.traffic);
  text += fmt::format("min, mean and max over {} rank{}; mean of {} step{}\n", profile.num_ranks,
                      profile.num_ranks == 1 ? "" : "s", profile.num_steps,
                      profile.num_steps == 1 ? "" : "s, the first of the run left out");
  return text;
}

std::string to_json(const StepProfile& profile) {
  ordered_json json{{"num_ranks", profile.num_ranks},
                    {"num_steps", profile.num_steps},
                    {"step_ms", to_json(profile.step_ms)},
                    {"phases", ordered_json::array()}};
  for (const StepProfile::Row& row : profile.rows) {
    json["phases"].push_back(
        {{"phase", to_string(row.phase)}, {"ms", to_json(row.ms)}, {"share", row.share}});
  }
  for (const StepProfile::TrafficRow& row : profile.traffic) {
    json["traffic"].push_back({{"communicator", row.communicator},
                               {"logical_mib", to_json(row.logical_mib)},
                               {"moved_mib", to_json(row.moved_mib)},
                               {"hidden", row.hidden}});
  }
  return json.dump(1);
}

void write_profile(const comm::Communicator& world, const PhaseTimer& timer,
                   const StepProfile& profile, const std::filesystem::path& directory) {
  const std::string trace = chrome_trace(world, timer);
  comm::agreed(world, "write the profile", [&] {
    if (world.rank() != 0) return;
    write_text(directory / "profile.json", to_json(profile) + '\n');
    write_text(directory / "trace.json", trace);
  });
}

}  // namespace tessera::trainer
