// SPDX-License-Identifier: Apache-2.0
// Machine files: modules/study/MACHINE.md.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <tessera/study/machine.hpp>

#include "base/error.hpp"

namespace tessera::study {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* format_name = "tessera machine";
constexpr int format_version = 1;

struct Place {
  std::string place;  ///< "tiers.node"
  std::string origin;
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::format, "{}: {} {}", origin, place.empty() ? "the file" : place, why);
  }
};

/// An object of the file with its place in it.
class Part {
 public:
  Part(const json& value, std::string place, const std::string& origin)
      : value_(value), place_(std::move(place)), origin_(origin) {
    if (!value.is_object()) refuse("is no object");
  }
  /// At the end: a misspelt key would be a figure that nobody reads.
  void refuse_unknown() const {
    for (const auto& [key, unused] : value_.items()) {
      if (!seen_.contains(key)) at(key).refuse("is unknown; modules/study/MACHINE.md has all keys");
    }
  }

  bool has(const char* key) const { return value_.contains(key); }
  Part part(const char* key) { return Part(require(key), name(key), origin_); }
  std::string text(const char* key) {
    const json& value = require(key);
    if (!value.is_string()) at(key).refuse("is no text");
    return value.get<std::string>();
  }
  double number(const char* key, double low, double high) {
    const json& value = require(key);
    if (!value.is_number()) at(key).refuse("is no number");
    const double number = value.get<double>();
    if (!(number >= low && number <= high)) {
      at(key).refuse(fmt::format("is {}, not from {} to {}", number, low, high));
    }
    return number;
  }
  std::int64_t count(const char* key) {
    const double value = number(key, 1.0, 1e9);
    if (value != std::floor(value)) at(key).refuse("is no whole number");
    return static_cast<std::int64_t>(value);
  }
  bool flag(const char* key) {
    const json& value = require(key);
    if (!value.is_boolean()) at(key).refuse("is neither true nor false");
    return value.get<bool>();
  }
  Figure figure(const char* key) {
    Part entry = part(key);
    constexpr double least = 1e-12, most = 1e24;
    Figure figure;
    figure.value = figure.low = figure.high = entry.number("value", least, most);
    if (entry.has("low") || entry.has("high")) {
      figure.low = entry.number("low", least, figure.value);
      figure.high = entry.number("high", figure.value, most);
    }
    if (entry.has("source")) figure.source = entry.text("source");
    if (figure.source.empty() && !entry.has("low")) {
      entry.refuse("has neither an interval (low, high) nor a source (what it rests on)");
    }
    entry.refuse_unknown();
    return figure;
  }
  std::optional<Figure> optional_figure(const char* key) {
    if (!has(key)) return std::nullopt;
    return figure(key);
  }
  /// Calls body(part) for each object of a list.
  template <class Body>
  void each(const char* key, const Body& body) {
    const json& list = require(key);
    if (!list.is_array()) at(key).refuse("is no list");
    for (std::size_t i = 0; i < list.size(); ++i) {
      Part entry(list[i], fmt::format("{}[{}]", name(key), i), origin_);
      body(entry);
      entry.refuse_unknown();
    }
  }
  [[noreturn]] void refuse(const std::string& why) const { Place{place_, origin_}.refuse(why); }
  Place at(const std::string& key) const { return {name(key), origin_}; }

 private:
  std::string name(const std::string& key) const {
    return place_.empty() ? key : place_ + "." + key;
  }
  const json& require(const char* key) {
    seen_.insert(key);
    const auto found = value_.find(key);
    if (found == value_.end()) at(key).refuse("is missing; modules/study/MACHINE.md has all keys");
    return *found;
  }

  const json& value_;
  std::string place_;
  const std::string& origin_;
  std::set<std::string> seen_;
};

Tier parse_tier(Part part) {
  Tier tier;
  tier.latency_s = part.figure("latency_s");
  tier.bandwidth_bytes_per_s = part.figure("bandwidth_bytes_per_s");
  tier.node_bandwidth_bytes_per_s = part.optional_figure("node_bandwidth_bytes_per_s");
  part.refuse_unknown();
  return tier;
}

std::vector<RateAt> parse_rates(Part& part, const char* key, const char* size) {
  std::vector<RateAt> rates;
  part.each(key, [&](Part& entry) {
    RateAt rate;
    const std::string dtype = entry.text("dtype");
    if (dtype != "f32" && dtype != "bf16") entry.at("dtype").refuse("is neither f32 nor bf16");
    rate.dtype = dtype == "f32" ? Dtype::f32 : Dtype::bf16;
    rate.size = entry.number(size, 1.0, 1e12);
    rate.forward_flop_per_s = entry.figure("forward_flop_per_s");
    rate.backward_flop_per_s = entry.figure("backward_flop_per_s");
    rates.push_back(rate);
  });
  std::stable_sort(rates.begin(), rates.end(),
                   [](const RateAt& a, const RateAt& b) { return a.size < b.size; });
  if (rates.empty()) part.at(key).refuse("is empty (nothing can be computed)");
  return rates;
}

CollectiveTime parse_collective(Part& entry) {
  CollectiveTime time;
  time.operation = entry.text("operation");
  time.tier = entry.text("tier");
  if (time.tier != "node" && time.tier != "network") {
    entry.at("tier").refuse("is neither node nor network");
  }
  time.ranks = entry.count("ranks");
  time.bytes = entry.number("bytes", 1.0, 1e15);
  time.seconds = entry.figure("seconds");
  return time;
}

ordered_json to_json(const Figure& figure) {
  ordered_json json{{"value", figure.value}};
  if (figure.source.empty() || figure.low != figure.high) {
    json["low"] = figure.low;
    json["high"] = figure.high;
  }
  if (!figure.source.empty()) json["source"] = figure.source;
  return json;
}

ordered_json to_json(const Tier& tier) {
  ordered_json json{{"latency_s", to_json(tier.latency_s)},
                    {"bandwidth_bytes_per_s", to_json(tier.bandwidth_bytes_per_s)}};
  if (tier.node_bandwidth_bytes_per_s) {
    json["node_bandwidth_bytes_per_s"] = to_json(*tier.node_bandwidth_bytes_per_s);
  }
  return json;
}

ordered_json to_json(const std::vector<RateAt>& rates, const char* size) {
  ordered_json json = ordered_json::array();
  for (const RateAt& rate : rates) {
    json.push_back({{"dtype", to_string(rate.dtype)},
                    {size, rate.size},
                    {"forward_flop_per_s", to_json(rate.forward_flop_per_s)},
                    {"backward_flop_per_s", to_json(rate.backward_flop_per_s)}});
  }
  return json;
}

void parse_optional_parts(Part& file, Machine& machine) {
  if (file.has("collectives")) {
    file.each("collectives",
              [&](Part& entry) { machine.collectives.push_back(parse_collective(entry)); });
  }
  if (file.has("phase_factors")) {
    Part factors = file.part("phase_factors");
    for (std::size_t i = 0; i < num_step_phases; ++i) {
      const char* name = to_string(static_cast<StepPhase>(i));
      if (factors.has(name)) machine.factors[static_cast<StepPhase>(i)] = factors.figure(name);
    }
    factors.refuse_unknown();
  }
}

Machine parse(const json& document, const std::string& origin) {
  Part file(document, "", origin);
  if (!file.has("format") || file.text("format") != format_name) {
    file.refuse(fmt::format("is no machine file (\"format\" is not \"{}\")", format_name));
  }
  const std::int64_t version = file.count("version");
  if (version != format_version) {
    file.at("version").refuse(fmt::format("is {}; this program reads {}", version, format_version));
  }
  Machine machine;
  machine.name = file.text("name");
  machine.description = file.text("description");
  machine.ranks_per_node = file.count("ranks_per_node");
  machine.shares_memory = file.flag("shares_memory");
  machine.overlap = file.number("overlap", 0.0, 1.0);
  machine.memory_bytes = file.optional_figure("memory_bytes");
  machine.node_mtbf_s = file.optional_figure("node_mtbf_s");
  {
    Part tiers = file.part("tiers");
    machine.node = parse_tier(tiers.part("node"));
    if (tiers.has("network")) machine.network = parse_tier(tiers.part("network"));
    tiers.refuse_unknown();
  }
  machine.triad_bytes_per_s = file.figure("triad_bytes_per_s");
  machine.products = parse_rates(file, "products", "rows");
  machine.attention = parse_rates(file, "attention", "keys");
  {
    Part files = file.part("file_system");
    machine.file_write_bytes_per_s = files.figure("node_write_bytes_per_s");
    machine.file_read_bytes_per_s = files.figure("node_read_bytes_per_s");
    machine.file_system_bytes_per_s = files.optional_figure("total_write_bytes_per_s");
    files.refuse_unknown();
  }
  parse_optional_parts(file, machine);
  file.refuse_unknown();
  return machine;
}

}  // namespace

Machine parse_machine(const std::string& json_text, const std::string& origin) {
  const json document = json::parse(json_text, nullptr, false);
  if (document.is_discarded()) fail(ErrorKind::format, "{}: the file is no JSON", origin);
  return parse(document, origin);
}

Machine read_machine(const std::string& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) fail(ErrorKind::file, "{} cannot be read", path);
  return parse_machine(text, path);
}

std::string to_json(const Machine& machine) {
  ordered_json json{{"format", format_name},
                    {"version", format_version},
                    {"name", machine.name},
                    {"description", machine.description},
                    {"ranks_per_node", machine.ranks_per_node},
                    {"shares_memory", machine.shares_memory},
                    {"overlap", machine.overlap}};
  if (machine.memory_bytes) json["memory_bytes"] = to_json(*machine.memory_bytes);
  if (machine.node_mtbf_s) json["node_mtbf_s"] = to_json(*machine.node_mtbf_s);
  json["tiers"]["node"] = to_json(machine.node);
  if (machine.network) json["tiers"]["network"] = to_json(*machine.network);
  json["triad_bytes_per_s"] = to_json(machine.triad_bytes_per_s);
  json["products"] = to_json(machine.products, "rows");
  json["attention"] = to_json(machine.attention, "keys");
  json["file_system"] = {{"node_write_bytes_per_s", to_json(machine.file_write_bytes_per_s)},
                         {"node_read_bytes_per_s", to_json(machine.file_read_bytes_per_s)}};
  if (machine.file_system_bytes_per_s) {
    json["file_system"]["total_write_bytes_per_s"] = to_json(*machine.file_system_bytes_per_s);
  }
  for (const CollectiveTime& time : machine.collectives) {
    json["collectives"].push_back({{"operation", time.operation},
                                   {"tier", time.tier},
                                   {"ranks", time.ranks},
                                   {"bytes", time.bytes},
                                   {"seconds", to_json(time.seconds)}});
  }
  for (const auto& [phase, figure] : machine.factors) {
    json["phase_factors"][to_string(phase)] = to_json(figure);
  }
  return json.dump(1) + "\n";
}

}  // namespace tessera::study
