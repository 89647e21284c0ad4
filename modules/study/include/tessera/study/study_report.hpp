// SPDX-License-Identifier: Apache-2.0
// The report of a scaling study: Markdown, the same as HTML, pictures by gnuplot.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tessera/study/study_result.hpp"

namespace tessera::study {

/// The pictures that a report shows, in its order: name of the file without ending, and its script.
struct ReportPlot {
  std::string name;
  std::string title;
  std::string script;  ///< for gnuplot; writes `name`.svg in its working directory
};
/// Speed-up, efficiency, phases, and predicted against measured where there are predictions. local.
std::vector<ReportPlot> report_plots(const std::vector<StudyResult>& results);

/// Tables and links to the pictures. local.
std::string report_markdown(const std::vector<StudyResult>& results);
std::string report_html(const std::vector<StudyResult>& results);

/// report.md, report.html, and the pictures where gnuplot is on the path: with their scripts, which
/// are kept. Whether there are pictures. Throws Error::file. local.
bool write_report(const std::vector<StudyResult>& results, const std::filesystem::path& directory);

}  // namespace tessera::study
