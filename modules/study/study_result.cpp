// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <tessera/study/study_result.hpp>

#include "base/error.hpp"
#include "result_document.hpp"

namespace tessera::study {
namespace {

constexpr const char* format_name = "tessera study result";
constexpr std::int64_t format_version = 1;

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    lines.push_back(text.substr(begin, end - begin));
    begin = end == std::string::npos ? text.size() : end + 1;
  }
  return lines;
}

/// In this order in the file.
std::vector<std::int64_t> shape_numbers(const RunShape& shape) {
  return {shape.num_ranks, shape.expert,      shape.ranks_per_node, shape.shares_memory ? 1 : 0,
          shape.batch,     shape.micro_batch, shape.length};
}

RunShape parse_shape(const ResultDocument& file, const std::string& path) {
  const std::vector<std::int64_t>& numbers = file.count("shape");
  if (numbers.size() != 7)
    fail(ErrorKind::format, "{}: shape has {} numbers", path, numbers.size());
  RunShape shape;
  shape.num_ranks = numbers[0], shape.expert = numbers[1], shape.ranks_per_node = numbers[2];
  shape.shares_memory = numbers[3] != 0;
  shape.batch = numbers[4], shape.micro_batch = numbers[5], shape.length = numbers[6];
  shape.dtype = file.text("dtype") == "bf16" ? Dtype::bf16 : Dtype::f32;
  shape.recompute = model::parse_recompute(file.text("recompute"));
  if (shape.num_ranks < 1 || shape.batch < 1) {
    fail(ErrorKind::format, "{}: a run of {} ranks and {} sequences", path, shape.num_ranks,
         shape.batch);
  }
  return shape;
}

}  // namespace

bool StudyResult::leaves_model() const {
  const Figure measured = step();
  const bool is_inside = planned_s >= measured.low && planned_s <= measured.high;
  return !is_inside && std::abs(planned_s / measured.value - 1.0) > 0.1;
}

std::string StudyResult::worst_phase() const {
  double most = 0.0;
  std::string worst;
  for (std::size_t i = 0; i < std::min(phases.size(), planned_phase_s.size()); ++i) {
    const double miss = std::abs(phase_s[i] - planned_phase_s[i]);
    if (miss <= most) continue;
    most = miss;
    worst = phases[i];
  }
  return worst;
}

void save(const StudyResult& result, const std::filesystem::path& path) {
  ResultDocument file;
  file.texts = {{"format", format_name},
                {"program", result.program},
                {"dependencies", result.dependencies},
                {"modules", result.modules},
                {"nodes", result.nodes},
                {"config_json", result.config_json},
                {"machine_json", result.machine_json},
                {"series", result.series},
                {"routing", result.routing},
                {"dtype", to_string(result.shape.dtype)},
                {"recompute", model::to_string(result.shape.recompute)},
                {"phases", joined(result.phases)},
                {"communicators", joined(result.communicators)}};
  file.counts = {{"version", {format_version}},
                 {"shape", shape_numbers(result.shape)},
                 {"cpus_of_ranks", result.cpus_of_ranks},
                 {"expert_choices", result.expert_choices}};
  file.numbers = {{"step_s", result.step_s},
                  {"phase_s", result.phase_s},
                  {"planned_phase_s", result.planned_phase_s},
                  {"planned_s", {result.planned_s}},
                  {"simulated_s", {result.simulated_s}},
                  {"logical_bytes", result.logical_bytes},
                  {"moved_bytes", result.moved_bytes}};
  file.save(path);
}

StudyResult load_result(const std::filesystem::path& path) {
  const ResultDocument file = ResultDocument::load(path);
  const std::string name = path.string();
  if (file.text("format") != format_name || file.count("version") != std::vector{format_version}) {
    fail(ErrorKind::format, "{} is no result of version {}", name, format_version);
  }
  StudyResult result;
  result.program = file.text("program"), result.dependencies = file.text("dependencies");
  result.modules = file.text("modules"), result.nodes = file.text("nodes");
  result.config_json = file.text("config_json"), result.machine_json = file.text("machine_json");
  result.series = file.text("series"), result.routing = file.text("routing");
  result.cpus_of_ranks = file.count("cpus_of_ranks");
  result.shape = parse_shape(file, name);
  result.step_s = file.number("step_s");
  result.phases = lines_of(file.text("phases"));
  result.phase_s = file.number("phase_s");
  result.planned_phase_s = file.number("planned_phase_s");
  result.communicators = lines_of(file.text("communicators"));
  result.logical_bytes = file.number("logical_bytes");
  result.moved_bytes = file.number("moved_bytes");
  result.expert_choices = file.count("expert_choices");
  const bool is_whole =
      !result.step_s.empty() && result.phase_s.size() == result.phases.size() &&
      (result.planned_phase_s.empty() || result.planned_phase_s.size() == result.phases.size()) &&
      file.number("planned_s").size() == 1 && file.number("simulated_s").size() == 1;
  if (!is_whole) fail(ErrorKind::format, "{}: lists of different lengths", name);
  result.planned_s = file.number("planned_s").front();
  result.simulated_s = file.number("simulated_s").front();
  return result;
}

std::vector<StudyResult> load_results(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> paths;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("result-") && name.ends_with(".h5")) paths.push_back(it->path());
  }
  if (paths.empty()) {
    fail(ErrorKind::file, "{} has no result-*.h5; `tessera study run` writes them",
         directory.string());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<StudyResult> results;
  for (const auto& path : paths) results.push_back(load_result(path));
  return results;
}

}  // namespace tessera::study
