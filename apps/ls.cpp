// SPDX-License-Identifier: Apache-2.0
// `tessera ls`: the checkpoints of a run, complete or not.
#include <fmt/chrono.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>

#include "comm/agree.hpp"
#include "command.hpp"
#include "tessera/trainer/checkpoint_directory.hpp"

namespace tessera::apps {
namespace {

using trainer::CheckpointEntry;

constexpr std::size_t num_columns = 5;
using Line = std::array<std::string, num_columns>;

struct ListOptions {
  std::vector<std::string> paths;
};

std::string state_of(const CheckpointEntry& entry) {
  if (entry.is_partial) return "unfinished: its save was interrupted, or is going on";
  if (!entry.summary) return "unusable: " + entry.problem;
  return entry.is_latest ? "complete, latest" : "complete";
}

Line line_of(const CheckpointEntry& entry, const std::string& name) {
  const auto& summary = entry.summary;
  std::string optimizer = "-";
  if (summary) {
    optimizer = summary->state.optimizer.empty() ? "weights alone" : summary->state.optimizer;
  }
  return {summary ? std::to_string(summary->state.step) : "-",
          format_bytes(static_cast<double>(entry.file_bytes)),
          fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::localtime(entry.written)), optimizer,
          fmt::format("{}  {}", name, state_of(entry))};
}

/// Numbers to the right, text to the left.
void print_table(const std::vector<Line>& lines) {
  std::array<std::size_t, num_columns> widths{};
  for (const Line& line : lines) {
    for (std::size_t c = 0; c < num_columns; ++c) widths[c] = std::max(widths[c], line[c].size());
  }
  for (const Line& line : lines) {
    fmt::print("{:>{}}  {:>{}}  {:<{}}  {:<{}}  {}\n", line[0], widths[0], line[1], widths[1],
               line[2], widths[2], line[3], widths[3], line[4]);
  }
}

void add_directory(const std::filesystem::path& directory, std::vector<Line>& lines,
                   std::vector<std::string>& notes) {
  const std::vector<CheckpointEntry> entries = trainer::list_checkpoints(directory);
  if (entries.empty()) notes.push_back(fmt::format("{}: no checkpoints", directory.string()));
  for (const CheckpointEntry& entry : entries) {
    lines.push_back(line_of(entry, entry.path.string()));
  }
  const auto latest = trainer::latest_checkpoint(directory);
  if (!latest.empty() && std::ranges::count(entries, latest, &CheckpointEntry::path) == 0) {
    notes.push_back(fmt::format("{} names {}, which is not there", (directory / "latest").string(),
                                latest.filename().string()));
  }
}

void list(const ListOptions& options) {
  std::vector<Line> lines{{"step", "size", "written", "optimizer", "checkpoint"}};
  std::vector<std::string> notes;
  for (const std::filesystem::path path : options.paths) {
    if (std::filesystem::is_directory(path)) {
      add_directory(path, lines, notes);
    } else {
      if (!std::filesystem::exists(path)) fail(ErrorKind::file, "no file {}", path.string());
      lines.push_back(line_of(trainer::look_at_checkpoint(path), path.string()));
    }
  }
  if (lines.size() > 1) print_table(lines);
  for (const std::string& note : notes) fmt::print("{}\n", note);
  std::fflush(stdout);
}

int run(const ListOptions& options) {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  comm::agreed(world, "list checkpoints", [&] {
    if (world.rank() == 0) list(options);
  });
  return 0;
}

}  // namespace

Command add_ls(CLI::App& program) {
  const auto options = std::make_shared<ListOptions>();
  CLI::App* app = add_command(program, "ls", "List checkpoints: step, size, date, completeness.",
                              "  tessera ls run/\n"
                              "  tessera ls run/step-00000100.h5 gpt-oss-20b.h5\n"
                              "Metadata alone is read; `tessera verify` reads the data too.");
  app->add_option("paths", options->paths, "directories of runs, or Tessera files")
      ->required()
      ->type_name("DIR|FILE");
  return {app, [options] { return run(*options); }, [] { return false; }};
}

}  // namespace tessera::apps
