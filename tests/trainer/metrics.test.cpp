// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/metrics.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/log.hpp"
#include "support/collective_check.hpp"
#include "support/temporary_directory.hpp"
#include "tessera/trainer/loss_curve.hpp"
#include "tessera/trainer/metrics_table.hpp"

using namespace tessera;
using namespace tessera::trainer;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

comm::Communicator make_world() { return comm::Communicator(MPI_COMM_WORLD, "world"); }

StepMetrics at_step(std::int64_t step) {
  StepMetrics metrics;
  metrics.step = step;
  metrics.loss = 5.0 / static_cast<double>(step);
  metrics.step_s = 2.0;
  return metrics;
}

std::string text_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::vector<std::int64_t> steps_in(const fs::path& path) {
  std::vector<std::int64_t> steps;
  std::istringstream lines(text_of(path));
  for (std::string line; std::getline(lines, line);) {
    steps.push_back(nlohmann::json::parse(line).at("step").get<std::int64_t>());
  }
  return steps;
}

/// The messages that this process logs while the object lives.
class LogCapture {
 public:
  LogCapture() {
    set_log_sink([this](LogLevel, const std::string& text) { messages.push_back(text); });
  }
  ~LogCapture() { set_log_sink({}); }
  std::vector<std::string> messages;
};

/// What `print` writes to a stream that is no terminal.
template <class Print>
std::string printed(const Print& print) {
  char* data = nullptr;
  std::size_t size = 0;
  std::FILE* stream = ::open_memstream(&data, &size);
  print(stream);
  std::fclose(stream);
  std::string text(data, size);
  std::free(data);
  return text;
}

}  // namespace

TEST_CASE("A line of metrics has the promised keys and is JSON whatever the numbers are") {
  StepMetrics metrics = at_step(3);
  metrics.learning_rate = 1e-3;
  metrics.grad_norm = std::numeric_limits<double>::quiet_NaN();
  metrics.dropped = true;
  metrics.eval_loss = 2.5;
  const auto json = nlohmann::json::parse(to_json_line(metrics));
  for (const char* key :
       {"step", "loss", "grad_norm", "lr", "step_s", "tokens_per_s", "peak_rss_mib"}) {
    CHECK(json.contains(key));
  }
  CHECK(json["step"] == 3);
  CHECK(json["lr"] == 1e-3);
  CHECK(json["grad_norm"].is_null());
  CHECK(json["dropped"] == true);
  CHECK(json["eval_loss"] == 2.5);
  CHECK_FALSE(nlohmann::json::parse(to_json_line(at_step(1))).contains("eval_loss"));
}

TEST_CASE("A loss is written with all its digits") {
  StepMetrics metrics = at_step(1);
  metrics.loss = 1.0 / 3.0;
  CHECK(nlohmann::json::parse(to_json_line(metrics))["loss"].get<double>() == 1.0 / 3.0);
}

TEST_CASE("Each step is one line, in the file as soon as it is written") {
  const auto world = make_world();
  const test::TemporaryDirectory directory(world);
  const fs::path path = directory / "metrics.jsonl";
  MetricsWriter writer(world, path, 0);
  for (std::int64_t step = 1; step <= 3; ++step) {
    writer.write(at_step(step));
    if (world.rank() == 0) CHECK(steps_in(path).size() == static_cast<std::size_t>(step));
  }
  writer.finish(world);
  if (world.rank() == 0) CHECK(steps_in(path) == std::vector<std::int64_t>{1, 2, 3});
  world.barrier("looked at files");
}

TEST_CASE("A resumed run keeps the lines up to its step, once, and drops a line cut by a crash") {
  const auto world = make_world();
  const test::TemporaryDirectory directory(world);
  const fs::path path = directory / "metrics.jsonl";
  {
    MetricsWriter writer(world, path, 0);
    for (std::int64_t step = 1; step <= 5; ++step) writer.write(at_step(step));
    writer.finish(world);
  }
  if (world.rank() == 0) std::ofstream(path, std::ios::app) << "{\"step\":6,\"lo";
  world.barrier("line cut");
  {
    MetricsWriter writer(world, path, 3);
    writer.write(at_step(4));
    writer.finish(world);
  }
  if (world.rank() == 0) {
    CHECK(steps_in(path) == std::vector<std::int64_t>{1, 2, 3, 4});
    CHECK(std::distance(fs::directory_iterator(directory.path()), {}) == 1);
  }
  world.barrier("looked at files");
  const MetricsWriter fresh(world, path, 0);
  if (world.rank() == 0) CHECK(fs::file_size(path) == 0);
  world.barrier("looked at files");
}

TEST_CASE("A full disk is warned of once, and told at the end as an error on all ranks") {
  const auto world = make_world();
  LogCapture log;
  MetricsWriter writer(world, "/dev/full", 0);
  writer.write(at_step(1));
  writer.write(at_step(2));
  if (world.rank() == 0) {
    REQUIRE_FALSE(log.messages.empty());
    CHECK(log.messages.size() == 1);
    CHECK_THAT(log.messages[0], Contains("No space left"));
  }
  CHECK_THROWS_WITH(writer.finish(world), Contains("could not be written"));
}

TEST_CASE("A file that cannot be opened on rank 0 is the same error on all ranks") {
  const auto world = make_world();
  CHECK_THROWS_WITH(MetricsWriter(world, "/nonexistent/metrics.jsonl", 0),
                    Contains("/nonexistent/metrics.jsonl"));
}

TEST_CASE(
    "The table has a header, one line per n steps, and plain text where there is no terminal") {
  const std::string text = printed([](std::FILE* stream) {
    MetricsTable table(stream, 5, 12);
    for (std::int64_t step = 1; step <= 12; ++step) table.add(at_step(step));
  });
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  REQUIRE(lines.size() == 5);  // the header, steps 1, 5, 10 and 12
  CHECK_THAT(lines[0],
             Contains("step") && Contains("loss") && Contains("tokens/s") && Contains("left"));
  CHECK_THAT(lines[1], Contains("22 s"));
  CHECK_THAT(lines[3], Contains("0.50000"));
  CHECK_THAT(lines[4], Contains("0 s"));
  CHECK(text.find('\x1b') == std::string::npos);
}

TEST_CASE("Evaluations and dropped steps have a line out of turn") {
  const std::string text = printed([](std::FILE* stream) {
    MetricsTable table(stream, 100, 1000);
    for (std::int64_t step = 1; step <= 4; ++step) {
      StepMetrics metrics = at_step(step);
      if (step == 2) metrics.eval_loss = 1.25;
      metrics.dropped = step == 3;
      table.add(metrics);
    }
  });
  CHECK_THAT(text, Contains("evaluation loss 1.25000") && Contains("step dropped"));
  CHECK(std::count(text.begin(), text.end(), '\n') == 4);
}

TEST_CASE("Durations are for people") {
  CHECK(format_duration(0.4) == "0 s");
  CHECK(format_duration(61) == "1 min 01 s");
  CHECK(format_duration(7500) == "2 h 05 min");
  CHECK(format_duration(std::numeric_limits<double>::quiet_NaN()) == "?");
}

TEST_CASE("Peak memory is what the system says, in MiB") {
  const double before = peak_rss_mib();
  const std::vector<char> block(64 << 20, 1);
  CHECK(peak_rss_mib() >= 64.0);
  CHECK(peak_rss_mib() >= before);
  CHECK(peak_rss_mib() < 1e5);
  CHECK(proportional_set_mib() >= 64.0);
  CHECK(proportional_set_mib() <= peak_rss_mib());
  CHECK(block.back() == 1);
}

TEST_CASE("The loss curve is a picture, and no other file is left") {
  const auto world = make_world();
  const test::TemporaryDirectory directory(world);
  if (world.rank() == 0 && std::system("command -v gnuplot >/dev/null") == 0) {
    {
      std::ofstream file(directory / "metrics.jsonl");
      for (std::int64_t step = 1; step < 50; ++step) {
        StepMetrics metrics = at_step(step);
        if (step % 10 == 0) metrics.eval_loss = metrics.loss + 0.1;
        file << to_json_line(metrics) << '\n';
      }
    }
    const fs::path picture = directory / "loss 'a'.png";
    CHECK(draw_loss_curve(directory / "metrics.jsonl", picture));
    CHECK(text_of(picture).substr(1, 3) == "PNG");
    CHECK(std::distance(fs::directory_iterator(directory.path()), {}) == 2);
  }
  world.barrier("looked at files");
}

TEST_CASE("No losses, no gnuplot and a folder that cannot be written are one warning each") {
  const auto world = make_world();
  const test::TemporaryDirectory directory(world);
  if (world.rank() == 0) {
    LogCapture log;
    std::ofstream(directory / "empty.jsonl") << "{}\n";
    CHECK_FALSE(draw_loss_curve(directory / "empty.jsonl", directory / "loss.png"));
    CHECK(log.messages.size() == 1);
    std::ofstream(directory / "metrics.jsonl") << to_json_line(at_step(1)) << '\n';
    CHECK_FALSE(draw_loss_curve(directory / "metrics.jsonl", directory / "absent/loss.png"));
    CHECK(log.messages.size() == 2);
    const std::string path = std::getenv("PATH");
    setenv("PATH", "/nonexistent", 1);
    CHECK_FALSE(draw_loss_curve(directory / "metrics.jsonl", directory / "loss.png"));
    setenv("PATH", path.c_str(), 1);
    REQUIRE(log.messages.size() == 3);
    CHECK_THAT(log.messages[2], Contains("gnuplot is not installed"));
    CHECK(std::distance(fs::directory_iterator(directory.path()), {}) == 2);
  }
  world.barrier("looked at files");
}
