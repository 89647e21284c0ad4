// SPDX-License-Identifier: Apache-2.0
// Machine files: what is written is read back, the shipped ones say where each figure is from, and
// what is wrong with a file is named.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "study_models.hpp"

namespace tessera::study {
namespace {

using Catch::Contains;
using nlohmann::json;

const std::string machines = TESSERA_SOURCE_DIR "/share/machines/";

json valid() { return json::parse(to_json(test::round_machine())); }

std::string refusal(const json& file) {
  try {
    parse_machine(file.dump(), "m.json");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::format);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("A machine file is read back as it was written") {
  Machine machine = test::round_machine();
  machine.memory_bytes = Figure{8e10, 7.9e10, 8.1e10, ""};
  machine.network->node_bandwidth_bytes_per_s = Figure{4e11, 3e11, 5e11, ""};
  machine.factors[StepPhase::head] = Figure{1.5, 1.4, 1.6, ""};
  machine.collectives.push_back(
      {"all_to_all", "network", 16, 1024.0, Figure{1e-4, 9e-5, 2e-4, ""}});
  const std::string text = to_json(machine);
  const Machine again = parse_machine(text, "again");
  CHECK(to_json(again) == text);
  CHECK(again.factor(StepPhase::head) == 1.5);
  CHECK(again.factor(StepPhase::embed) == 1.0);
  CHECK(again.network->node_bandwidth_bytes_per_s->low == 3e11);
  CHECK(again.collectives.front().ranks == 16);
}

TEST_CASE("The shipped files are valid, and each figure has its source") {
  for (const char* name : {"h100.json", "epyc_9004.json"}) {
    CAPTURE(name);
    const Machine machine = read_machine(machines + name);
    CHECK(machine.network.has_value());
    CHECK_FALSE(machine.triad_bytes_per_s.source.empty());
    for (const RateAt& rate : machine.products) {
      CHECK_FALSE(rate.forward_flop_per_s.source.empty());
      CHECK_FALSE(rate.backward_flop_per_s.source.empty());
    }
  }
}

TEST_CASE("What is wrong with a machine file is named with its place") {
  CHECK(refusal(valid()).empty());
  json file = valid();
  file.erase("triad_bytes_per_s");
  CHECK_THAT(refusal(file), Contains("m.json: triad_bytes_per_s is missing"));
  file = valid();
  file["tiers"]["network"]["latency"] = 1;
  CHECK_THAT(refusal(file), Contains("tiers.network.latency is unknown"));
  file = valid();
  file["tiers"]["node"]["latency_s"]["value"] = -1.0;
  CHECK_THAT(refusal(file), Contains("tiers.node.latency_s.value is -1, not from"));
  file = valid();
  file["products"][0]["forward_flop_per_s"] = {{"value", 1e12}};
  CHECK_THAT(refusal(file), Contains("products[0].forward_flop_per_s has neither an interval"));
  file = valid();
  file["triad_bytes_per_s"] = {{"value", 1e9}, {"low", 2e9}, {"high", 3e9}};
  CHECK_THAT(refusal(file), Contains("triad_bytes_per_s.low"));
  file = valid();
  file["version"] = 2;
  CHECK_THAT(refusal(file), Contains("version is 2; this program reads 1"));
  file = valid();
  file["format"] = "something";
  CHECK_THAT(refusal(file), Contains("is no machine file"));
  file = valid();
  file["phase_factors"]["thinking"] = {{"value", 1.0}, {"source", "s"}};
  CHECK_THAT(refusal(file), Contains("phase_factors.thinking is unknown"));
  file = valid();
  file["attention"] = json::array();
  CHECK_THAT(refusal(file), Contains("attention is empty"));
  CHECK_THAT(refusal(json(3)), Contains("the file is no object"));
  CHECK_THROWS_WITH(parse_machine("{", "m.json"), Contains("no JSON"));
  CHECK_THROWS_WITH(read_machine("/absent.json"), Contains("cannot be read"));
}

TEST_CASE("Rates lie between those of the table, and beyond it stay") {
  const Machine machine = test::round_machine();
  const auto rate = [&](double rows) { return machine.product_rate(Dtype::bf16, rows, false); };
  CHECK(rate(1.0) == Approx(3e14));
  CHECK(rate(64.0) == Approx(3e14));
  CHECK(rate(256.0) == Approx(3e14 * std::sqrt(2.0)));  // the middle of the logarithms
  CHECK(rate(1e6) == Approx(6e14));
  CHECK_THROWS_WITH(machine.attention_rate(Dtype::f32, 64.0, false),
                    Contains("no attention rates in f32"));
  Machine single = machine;
  single.network.reset();
  CHECK_THROWS_WITH(single.between_nodes(), Contains("no tier \"network\""));
}

TEST_CASE("A median has its interval") {
  const Figure one = Figure::median_of({3.0});
  CHECK((one.value == 3.0 && one.low == 3.0 && one.high == 3.0));
  std::vector<double> samples;
  for (int i = 1; i <= 101; ++i) samples.push_back(i);
  const Figure many = Figure::median_of(samples);
  CHECK(many.value == 51.0);
  CHECK(many.low == 41.0);  // ranks 51 -+ 0.98 sqrt(101), from 0
  CHECK(many.high == 62.0);
  CHECK(Figure::median_of({4.0, 1.0, 2.0, 3.0}).value == 2.5);
}

}  // namespace tessera::study
