// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <tessera/study/describe_time.hpp>
#include <tessera/study/study_report.hpp>

#include "base/error.hpp"
#include "scaling_series.hpp"

namespace tessera::study {
namespace {

/// Cells of one table, which both formats print.
struct Table {
  std::string title;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
};

std::string grid_name(const StudyResult& result) {
  return fmt::format("{} = {} x {}", result.shape.num_ranks, result.shape.expert,
                     result.shape.num_ranks / result.shape.expert);
}

std::string measured(const StudyResult& result) {
  const Figure step = result.step();
  return fmt::format("{:.4g} [{:.4g}, {:.4g}]", 1e3 * step.value, 1e3 * step.low, 1e3 * step.high);
}

Table runs_table(const std::vector<StudyResult>& results) {
  Table table{
      "Runs",
      {"series", "ranks = expert x replica", "batch", "routing", "step [ms], 95 %", "speed-up",
       "efficiency", "predicted [ms]", "off", "simulated [ms]", "outside the model"},
      {}};
  for (const ScalingSeries& series : scaling_series(results)) {
    for (const ScalingPoint& point : series.points) {
      const StudyResult& result = *point.result;
      std::vector<std::string> row{series.name,
                                   grid_name(result),
                                   fmt::format("{}", result.shape.batch),
                                   result.routing,
                                   measured(result),
                                   fmt::format("{:.2f}", point.speed_up),
                                   fmt::format("{:.1f} %", 100.0 * point.efficiency)};
      if (result.has_plan()) {
        row.push_back(fmt::format("{:.4g}", 1e3 * result.planned_s));
        row.push_back(
            fmt::format("{:+.1f} %", 100.0 * (result.planned_s / result.step().value - 1.0)));
        row.push_back(fmt::format("{:.4g}", 1e3 * result.simulated_s));
        row.push_back(result.leaves_model() ? "yes: " + result.worst_phase() : "");
      } else {
        row.insert(row.end(), 4, "");
      }
      table.rows.push_back(row);
    }
  }
  return table;
}

Table phases_table(const std::vector<StudyResult>& results) {
  Table table{"Phases [ms of a step, mean over ranks], measured and predicted", {"phase"}, {}};
  std::map<std::string, std::vector<std::string>> rows;
  std::vector<std::string> order;
  for (std::size_t i = 0; i < results.size(); ++i) {
    table.head.push_back(grid_name(results[i]));
    for (std::size_t k = 0; k < results[i].phases.size(); ++k) {
      auto& row = rows[results[i].phases[k]];
      if (row.empty()) order.push_back(results[i].phases[k]);
      row.resize(results.size());
      row[i] = fmt::format("{:.3g}", 1e3 * results[i].phase_s[k]);
      if (!results[i].planned_phase_s.empty()) {
        row[i] += fmt::format(" / {:.3g}", 1e3 * results[i].planned_phase_s[k]);
      }
    }
  }
  for (const std::string& name : order) {
    std::vector<std::string> row{name};
    row.insert(row.end(), rows[name].begin(), rows[name].end());
    table.rows.push_back(row);
  }
  return table;
}

Table traffic_table(const std::vector<StudyResult>& results) {
  Table table{"Bytes of a step, mean over ranks [MiB]",
              {"ranks = expert x replica", "communicator", "logical", "moved"},
              {}};
  for (const StudyResult& result : results) {
    for (std::size_t k = 0; k < result.communicators.size(); ++k) {
      table.rows.push_back({grid_name(result), result.communicators[k],
                            fmt::format("{:.3f}", result.logical_bytes[k] / (1 << 20)),
                            fmt::format("{:.3f}", result.moved_bytes[k] / (1 << 20))});
    }
  }
  return table;
}

Table origin_table(const std::vector<StudyResult>& results) {
  const StudyResult& first = results.front();
  const auto cpus = std::minmax_element(first.cpus_of_ranks.begin(), first.cpus_of_ranks.end());
  Table table{"Where it comes from", {"", ""}, {}};
  table.rows = {{"program", first.program}, {"libraries", first.dependencies}};
  if (!first.modules.empty()) table.rows.push_back({"modules", first.modules});
  if (!first.cpus_of_ranks.empty()) {
    table.rows.push_back(
        {"processors that a rank may run on", fmt::format("{} to {}", *cpus.first, *cpus.second)});
  }
  const bool is_mixed = std::any_of(results.begin(), results.end(), [&](const StudyResult& each) {
    return each.program != first.program || each.config_json != first.config_json;
  });
  if (is_mixed) table.rows.push_back({"beware", "runs of different programs or models"});
  return table;
}

std::vector<Table> tables(const std::vector<StudyResult>& results) {
  return {runs_table(results), phases_table(results), traffic_table(results),
          origin_table(results)};
}

std::string markdown(const Table& table) {
  const auto line = [](const std::vector<std::string>& cells) {
    std::string text = "|";
    for (const std::string& cell : cells) text += " " + cell + " |";
    return text + "\n";
  };
  std::string text = "## " + table.title + "\n\n" + line(table.head) + "|";
  for (std::size_t i = 0; i < table.head.size(); ++i) text += "---|";
  text += "\n";
  for (const auto& row : table.rows) text += line(row);
  return text + "\n";
}

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else if (c == '&')
      result += "&amp;";
    else
      result += c;
  }
  return result;
}

std::string html(const Table& table) {
  const auto line = [](const std::vector<std::string>& cells, const char* tag) {
    std::string text = "<tr>";
    for (const std::string& cell : cells) text += fmt::format("<{0}>{1}</{0}>", tag, escaped(cell));
    return text + "</tr>\n";
  };
  std::string text = "<h2>" + escaped(table.title) + "</h2>\n<table>\n" + line(table.head, "th");
  for (const auto& row : table.rows) text += line(row, "td");
  return text + "</table>\n";
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  if (!file) fail(ErrorKind::file, "cannot write {}", path.string());
}

constexpr const char* explanation =
    "Intervals: 95 % of the median over repeats. Efficiency: tokens per second and rank against "
    "the "
    "smallest run of the series. Outside the model: the prediction misses the interval and is more "
    "than 10 % off; the phase that misses most is named.";

}  // namespace

std::string report_markdown(const std::vector<StudyResult>& results) {
  std::string text = "# Scaling study\n\n" + std::string(explanation) + "\n\n";
  for (const ReportPlot& plot : report_plots(results)) {
    text += fmt::format("![{}]({}.svg)\n\n", plot.title, plot.name);
  }
  for (const Table& table : tables(results)) text += markdown(table);
  return text;
}

std::string report_html(const std::vector<StudyResult>& results) {
  std::string text =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Scaling "
      "study</title>\n"
      "<style>body{font-family:sans-serif;max-width:70em;margin:2em auto}table{border-collapse:"
      "collapse}td,th{border:1px solid #bbb;padding:.2em .6em;text-align:left}</style></head>\n"
      "<body><h1>Scaling study</h1>\n<p>" +
      std::string(explanation) + "</p>\n";
  for (const ReportPlot& plot : report_plots(results)) {
    text += fmt::format("<p><img src=\"{}.svg\" alt=\"{}\"></p>\n", plot.name, escaped(plot.title));
  }
  for (const Table& table : tables(results)) text += html(table);
  return text + "</body></html>\n";
}

bool write_report(const std::vector<StudyResult>& results, const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) fail(ErrorKind::file, "cannot make {}: {}", directory.string(), error.message());
  write_text(directory / "report.md", report_markdown(results));
  write_text(directory / "report.html", report_html(results));
  bool has_pictures = true;
  for (const ReportPlot& plot : report_plots(results)) {
    const std::filesystem::path script = directory / (plot.name + ".gnuplot");
    write_text(script, plot.script);
    // The name is one of ours; the directory is the shell's only as a quoted argument.
    std::string quoted = "'";
    for (const char c : directory.string())
      quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    quoted += "'";
    const std::string command =
        fmt::format("cd {} && gnuplot {}.gnuplot >/dev/null 2>&1", quoted, plot.name);
    has_pictures = std::system(command.c_str()) == 0 && has_pictures;
  }
  return has_pictures;
}

}  // namespace tessera::study
