// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tessera/study/study_report.hpp>

#include "scaling_series.hpp"

namespace tessera::study {
namespace {

std::string begin(const std::string& name, const std::string& title) {
  return fmt::format(
      "# SPDX-License-Identifier: Apache-2.0\n"
      "set terminal svg size 760,460 font \"sans,12\" background \"white\"\n"
      "set output \"{}.svg\"\nset title \"{}\"\nset grid\nset key outside right\n",
      name, title);
}

/// Data block $name of lines.
std::string block(const std::string& name, const std::string& lines) {
  return fmt::format("${} << END\n{}END\n", name, lines);
}

std::string label(const ScalingSeries& series) {
  const StudyResult& first = *series.points.front().result;
  return fmt::format("{}, routing {}", series.name, first.routing);
}

/// One curve per series; `value` of a point.
template <class Value>
std::string curves(const std::vector<ScalingSeries>& all, const Value& value, std::string plots) {
  std::string data;
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::string lines;
    for (const ScalingPoint& point : curve_of(all[i])) {
      lines += fmt::format("{} {}\n", point.result->shape.num_ranks, value(point));
    }
    data += block(fmt::format("s{}", i), lines);
    plots += fmt::format("{}$s{} using 1:2 with linespoints lw 2 pt 7 title \"{}\"",
                         plots.empty() ? "plot " : ", ", i, label(all[i]));
  }
  return data + plots + "\n";
}

ReportPlot speed_up(const std::vector<ScalingSeries>& all) {
  const std::int64_t first = all.front().points.front().result->shape.num_ranks;
  return {"speed_up", "speed-up",
          begin("speed_up", "Tokens per second against the smallest run") +
              "set xlabel \"ranks\"\nset ylabel \"speed-up\"\nset logscale xy 2\n" +
              curves(
                  all, [](const ScalingPoint& point) { return point.speed_up; },
                  fmt::format("plot x/{}.0 with lines dt 2 lc rgb \"#888888\" title \"ideal\"",
                              first))};
}

ReportPlot efficiency(const std::vector<ScalingSeries>& all) {
  return {"efficiency", "efficiency",
          begin("efficiency", "Tokens per second and rank against the smallest run") +
              "set xlabel \"ranks\"\nset ylabel \"efficiency [%]\"\nset yrange [0:*]\nset logscale "
              "x 2\n" +
              curves(
                  all, [](const ScalingPoint& point) { return 100.0 * point.efficiency; }, "")};
}

/// A stack per run.
ReportPlot phases(const std::vector<StudyResult>& results) {
  std::vector<std::string> order;
  for (const StudyResult& result : results) {
    for (const std::string& name : result.phases) {
      if (std::find(order.begin(), order.end(), name) == order.end()) order.push_back(name);
    }
  }
  std::string lines;
  for (const StudyResult& result : results) {
    lines += fmt::format("\"{}x{}\"", result.shape.num_ranks, result.shape.expert);
    for (const std::string& name : order) {
      const auto found = std::find(result.phases.begin(), result.phases.end(), name);
      const double seconds =
          found == result.phases.end()
              ? 0.0
              : result.phase_s[static_cast<std::size_t>(found - result.phases.begin())];
      lines += fmt::format(" {}", 1e3 * seconds);
    }
    lines += "\n";
  }
  std::string plots = "plot ";
  for (std::size_t i = 0; i < order.size(); ++i) {
    plots += fmt::format("{}$runs using {}{} title \"{}\"", i == 0 ? "" : ", ", i + 2,
                         i == 0 ? ":xtic(1)" : "", order[i]);
  }
  return {
      "phases", "phases of a step",
      begin("phases", "Phases of a step, mean over ranks") +
          "set style data histograms\nset style histogram rowstacked\nset style fill solid 0.8\n"
          "set boxwidth 0.7\nset xlabel \"ranks x expert\"\nset ylabel \"ms\"\n" +
          block("runs", lines) + plots + "\n"};
}

ReportPlot predictions(const std::vector<StudyResult>& results) {
  std::string inside, outside;
  for (const StudyResult& result : results) {
    if (!result.has_plan()) continue;
    const Figure step = result.step();
    (result.leaves_model() ? outside : inside) += fmt::format(
        "{} {} {} {}\n", 1e3 * step.value, 1e3 * result.planned_s, 1e3 * step.low, 1e3 * step.high);
  }
  std::string plots = "plot x with lines dt 2 lc rgb \"#888888\" title \"equal\"";
  const auto add = [&](const char* name, const char* color, const char* title) {
    plots += fmt::format(", ${} using 1:2:3:4 with xerrorbars pt 7 lc rgb \"{}\" title \"{}\"",
                         name, color, title);
  };
  if (!inside.empty()) add("inside", "#2b6cb0", "within the model");
  if (!outside.empty()) add("outside", "#e53e3e", "outside");
  return {"predictions", "predicted against measured",
          begin("predictions", "Steps, predicted against measured (95 % intervals)") +
              "set xlabel \"measured [ms]\"\nset ylabel \"predicted [ms]\"\n" +
              block("inside", inside) + block("outside", outside) + plots + "\n"};
}

}  // namespace

std::vector<ReportPlot> report_plots(const std::vector<StudyResult>& results) {
  const std::vector<ScalingSeries> series = scaling_series(results);
  std::vector<ReportPlot> plots{speed_up(series), efficiency(series), phases(results)};
  const bool has_plans = std::any_of(results.begin(), results.end(),
                                     [](const StudyResult& each) { return each.has_plan(); });
  if (has_plans) plots.push_back(predictions(results));
  return plots;
}

}  // namespace tessera::study
