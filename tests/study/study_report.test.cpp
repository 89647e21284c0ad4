// SPDX-License-Identifier: Apache-2.0
// Results of a study survive their file, a report says what they say, and a sweep has the points
// that its lists make.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tessera/study/study_report.hpp>
#include <tessera/study/study_run.hpp>

#include "base/error.hpp"
#include "result_document.hpp"
#include "study_models.hpp"
#include "support/temporary_directory.hpp"

namespace tessera::study {
namespace {

using Catch::Contains;
namespace fs = std::filesystem;

StudyResult result(std::int64_t ranks, std::int64_t expert, double step_s) {
  StudyResult made;
  made.program = "tessera 0", made.dependencies = "HDF5", made.nodes = "a node";
  made.config_json = "{}", made.series = "weak", made.routing = "balanced";
  made.shape = test::run_shape(ranks, expert);
  made.step_s = {0.98 * step_s, step_s, 1.02 * step_s};
  made.phases = {"expert forward", "gather wait"};
  made.phase_s = {0.7 * step_s, 0.3 * step_s};
  made.communicators = {"world"};
  made.logical_bytes = {1048576.0}, made.moved_bytes = {524288.0};
  made.expert_choices = {3, 1}, made.cpus_of_ranks = {1, 2};
  return made;
}

StudyResult planned(StudyResult made, double planned_s) {
  made.planned_s = made.simulated_s = planned_s;
  made.planned_phase_s = {made.phase_s[0], planned_s - made.phase_s[0]};
  return made;
}

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("A result is read back as it was saved, and what is no result is refused by name") {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const test::TemporaryDirectory directory(world);
  const fs::path path = directory.path() / "result-0000.h5";
  StudyResult before = planned(result(8, 4, 0.25), 0.26);
  before.shape.recompute = model::Recompute::layer;
  before.machine_json = "{\"a\": 1}\n";
  save(before, path);
  const StudyResult after = load_result(path);
  CHECK(after.program == before.program);
  CHECK(after.machine_json == before.machine_json);
  CHECK(after.modules.empty());
  CHECK(after.shape.num_ranks == 8);
  CHECK(after.shape.expert == 4);
  CHECK(after.shape.dtype == Dtype::bf16);
  CHECK(after.shape.recompute == model::Recompute::layer);
  CHECK(after.step_s == before.step_s);
  CHECK(after.phases == before.phases);
  CHECK(after.planned_phase_s == before.planned_phase_s);
  CHECK(after.expert_choices == before.expert_choices);
  CHECK(after.communicators == before.communicators);
  CHECK(load_results(directory.path()).size() == 1);

  ResultDocument broken = ResultDocument::load(path);
  broken.numbers.erase("step_s");
  broken.save(path);
  CHECK_THROWS_WITH(load_result(path), Contains("result-0000.h5: step_s is missing"));
  broken = ResultDocument();
  broken.texts["format"] = "something";
  broken.counts["version"] = {1};
  broken.save(path);
  CHECK_THROWS_WITH(load_result(path), Contains("is no result of version 1"));
  std::ofstream(path) << "no HDF5";
  CHECK_THROWS_AS(load_result(path), Error);
  CHECK_THROWS_WITH(load_results(directory.path() / "absent"), Contains("tessera study run"));
}

TEST_CASE("A report has speed-up and efficiency, and names the runs that leave the model") {
  // Twice the tokens in 1.25 times the time: 1.6 times as fast, 80 %.
  const std::vector<StudyResult> results{planned(result(1, 1, 1.0), 1.01),
                                         planned(result(2, 1, 1.25), 1.0),
                                         planned(result(2, 2, 1.6), 1.6)};
  CHECK_FALSE(results[0].leaves_model());
  CHECK(results[1].leaves_model());
  CHECK(results[1].worst_phase() == "gather wait");
  const std::string markdown = report_markdown(results);
  CHECK_THAT(markdown,
             Contains("| weak | 2 = 1 x 2 | 2 | balanced | 1250 [1225, 1275] | 1.60 | 80.0 % "
                      "| 1000 | -20.0 % | 1000 | yes: gather wait |"));
  CHECK_THAT(markdown, Contains("| 1.00 | 100.0 % | 1010 | +1.0 % | 1010 |  |"));
  CHECK_THAT(markdown, Contains("| 2 = 2 x 1 | world | 1.000 | 0.500 |"));
  CHECK_THAT(markdown, Contains("![efficiency](efficiency.svg)"));
  const std::string html = report_html(results);
  CHECK_THAT(html, Contains("<td>yes: gather wait</td>") && Contains("<img src=\"phases.svg\""));
  const auto plots = report_plots(results);
  REQUIRE(plots.size() == 4);
  // Of two grids of two ranks the quicker one is on the curve.
  CHECK_THAT(plots[0].script, Contains("1 1\n2 1.6\n"));
  CHECK(report_plots({result(1, 1, 1.0)}).size() == 3);  // nothing was predicted
}

TEST_CASE("A report is written with its pictures' scripts") {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  const test::TemporaryDirectory directory(world);
  const fs::path output = directory.path() / "a 'report'";
  const bool has_pictures = write_report({planned(result(1, 1, 1.0), 1.0)}, output);
  CHECK_THAT(text_of(output / "report.md"), Contains("# Scaling study"));
  CHECK_THAT(text_of(output / "report.html"), Contains("</html>"));
  CHECK(fs::exists(output / "phases.gnuplot"));
  if (std::system("command -v gnuplot >/dev/null 2>&1") == 0) {
    CHECK(has_pictures);
    CHECK_THAT(text_of(output / "predictions.svg"), Contains("</svg>"));
  }
}

TEST_CASE("A sweep has a point for each grid that exists") {
  const model::ModelConfig config = test::qwen3_config();
  Sweep sweep;
  sweep.ranks = {1, 2, 6};
  sweep.experts = {1, 2, 3};
  sweep.batch = 4;
  const auto weak = sweep_points(config, sweep);
  REQUIRE(weak.size() == 6);  // 1x1, 2x1, 2x2, 6x1, 6x2, 6x3
  CHECK(weak[2].expert == 2);
  CHECK(weak[5].batch == 24);
  sweep.scaling = Scaling::strong;
  CHECK_THROWS_WITH(sweep_points(config, sweep), Contains("4 sequences do not reach for 6 ranks"));
  sweep.ranks = {1, 2};
  CHECK(sweep_points(config, sweep)[2].batch == 4);
  sweep.experts = {4};
  CHECK_THROWS_WITH(sweep_points(config, sweep), Contains("no --expert divides"));
  CHECK(describe_routing(parse_routing("zipf:1.5")) == "zipf:1.5");
  CHECK(describe_routing(parse_routing("balanced")) == "balanced");
  CHECK_FALSE(parse_routing("real").has_value());
  for (const char* wrong : {"zipf:", "zipf:x", "zipf:-1", "even"}) {
    CHECK_THROWS_WITH(parse_routing(wrong), Contains("real, balanced or zipf"));
  }
}

}  // namespace tessera::study
