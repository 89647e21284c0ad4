// SPDX-License-Identifier: Apache-2.0
// Names, listing and removal of a run's files; rank 0 touches them, all learn the outcome.
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <functional>
#include <tessera/checkpoint/disk.hpp>
#include <tessera/trainer/checkpoint_directory.hpp>

#include "base/contract.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "comm/agree.hpp"

namespace tessera::trainer {
namespace {

namespace fs = std::filesystem;

constexpr const char* latest_name = "latest";
constexpr const char* partial_ending = ".partial";

/// "step-00000002.h5 (step 2), step-00000003.h5.partial (unfinished)"
std::string describe(const std::vector<CheckpointEntry>& entries) {
  std::string text;
  for (const CheckpointEntry& entry : entries) {
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", entry.path.filename().string(),
                        entry.is_partial ? "unfinished"
                        : entry.summary  ? fmt::format("step {}", entry.summary->state.step)
                                         : "damaged");
  }
  return text.empty() ? "no checkpoint" : text;
}

fs::path read_latest(const fs::path& directory) {
  const fs::path named = latest_checkpoint(directory);
  std::string problem = "has no file 'latest' that names a checkpoint";
  if (!named.empty()) {
    const CheckpointEntry entry = look_at_checkpoint(named);
    if (entry.summary) return named;
    problem = fmt::format("has a file 'latest' that names {}, which cannot be read: {}",
                          named.filename().string(), entry.problem);
  }
  fail(ErrorKind::file,
       "{} {} (a run's directory stands for that checkpoint); in it: {}; give a run's output "
       "directory or one "
       "of its complete checkpoints",
       directory.string(), problem, describe(list_checkpoints(directory)));
}

/// Step of a file named step-<digits><ending>, or -1.
std::int64_t step_of(const fs::path& path, std::string_view ending) {
  constexpr std::string_view beginning = "step-";
  const std::string name = path.filename().string();
  if (!name.starts_with(beginning) || !name.ends_with(ending)) return -1;
  const char* first = name.data() + beginning.size();
  const char* last = name.data() + name.size() - ending.size();
  std::int64_t step = -1;
  const auto [end, error] = std::from_chars(first, last, step);
  return error == std::errc() && end == last ? step : -1;
}

/// The checkpoints beyond the newest, and what interrupted saves left. local.
std::vector<fs::path> superfluous(const fs::path& directory, std::int64_t num_kept) {
  const fs::path latest = latest_checkpoint(directory);
  std::vector<std::pair<std::int64_t, fs::path>> complete;
  std::vector<fs::path> result;
  for (const auto& file : fs::directory_iterator(directory)) {
    if (step_of(file.path(), std::string(".h5") + partial_ending) >= 0) {
      result.push_back(file.path());
    } else if (const std::int64_t step = step_of(file.path(), ".h5"); step >= 0) {
      complete.emplace_back(step, file.path());
    }
  }
  std::ranges::sort(complete, std::greater());
  for (std::size_t i = static_cast<std::size_t>(num_kept); i < complete.size(); ++i) {
    if (complete[i].second != latest) result.push_back(complete[i].second);
  }
  return result;
}

/// What rank 0 finds in the file system, on all ranks. collective over world; errors are agreed.
template <class Find>
fs::path found_by_rank_0(const comm::Communicator& world, const char* what, Find&& find) {
  const std::string found = comm::agreed(
      world, what, [&] { return world.rank() == 0 ? find().string() : std::string(); });
  return world.broadcast_string(what, found, 0);
}

fs::path newest_in(const fs::path& path) {
  return fs::is_directory(path) ? read_latest(path) : path;
}

}  // namespace

void make_directory(const comm::Communicator& world, const fs::path& directory) {
  comm::agreed(world, "make output directory", [&] {
    if (world.rank() != 0) return;
    std::error_code error;
    fs::create_directories(directory, error);
    if (error) fail(ErrorKind::file, "cannot create {}: {}", directory.string(), error.message());
  });
}

fs::path checkpoint_path(const fs::path& directory, std::int64_t step) {
  return directory / fmt::format("step-{:08}.h5", step);
}

void set_latest(const comm::Communicator& world, const fs::path& checkpoint) {
  comm::agreed(world, "name the latest checkpoint", [&] {
    if (world.rank() != 0) return;
    const fs::path latest = fs::absolute(checkpoint).parent_path() / latest_name;
    const fs::path partial = latest.string() + partial_ending;
    std::ofstream file(partial);
    file << checkpoint.filename().string() << '\n';
    file.close();
    std::error_code error;
    if (file && checkpoint::to_disk(partial)) fs::rename(partial, latest, error);
    if (!file || error || !checkpoint::to_disk(latest.parent_path())) {
      fs::remove(partial, error);
      fail(ErrorKind::file, "cannot write {}", latest.string());
    }
  });
}

void forget_latest(const comm::Communicator& world, const fs::path& directory) {
  comm::agreed(world, "forget the earlier run", [&] {
    if (world.rank() != 0) return;
    std::error_code error;
    fs::remove(directory / latest_name, error);
    if (error)
      fail(ErrorKind::file, "cannot remove {}: {}", (directory / latest_name).string(),
           error.message());
  });
}

void keep_newest(const comm::Communicator& world, const fs::path& directory,
                 std::int64_t num_kept) {
  TESSERA_EXPECT(num_kept >= 1);
  comm::agreed(world, "remove older checkpoints", [&] {
    if (world.rank() != 0) return;
    try {
      for (const fs::path& path : superfluous(directory, num_kept)) fs::remove(path);
    } catch (const fs::filesystem_error& error) {
      log_warning("an older checkpoint stays: {}", error.what());
    }
  });
}

fs::path latest_checkpoint(const fs::path& directory) {
  std::ifstream file(directory / latest_name);
  std::string name;
  std::getline(file, name);
  return name.empty() ? fs::path() : directory / fs::path(name).filename();
}

CheckpointEntry look_at_checkpoint(const fs::path& path) {
  CheckpointEntry entry{.path = path, .is_partial = path.extension() == partial_ending};
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) {
    entry.file_bytes = status.st_size;
    entry.written = status.st_mtime;
  }
  if (entry.is_partial) return entry;
  try {
    entry.summary = checkpoint::summarize_file(path);
  } catch (const Error& problem) {
    entry.problem = problem.what();
    const std::string subject = path.string() + ": ";
    if (entry.problem.starts_with(subject)) entry.problem.erase(0, subject.size());
  }
  return entry;
}

std::vector<CheckpointEntry> list_checkpoints(const fs::path& directory) {
  const fs::path latest = latest_checkpoint(directory);
  std::vector<CheckpointEntry> entries;
  try {
    for (const auto& file : fs::directory_iterator(directory)) {
      const fs::path& path = file.path();
      const fs::path name = path.extension() == partial_ending ? path.stem() : path.filename();
      if (name.extension() != ".h5" || !file.is_regular_file()) continue;
      entries.push_back(look_at_checkpoint(path));
      entries.back().is_latest = path == latest;
    }
  } catch (const fs::filesystem_error& error) {
    fail(ErrorKind::file, "cannot list {}: {}", directory.string(), error.code().message());
  }
  std::ranges::sort(entries, {}, &CheckpointEntry::path);
  return entries;
}

bool has_latest(const comm::Communicator& world, const fs::path& directory) {
  const bool is_there = world.rank() == 0 && fs::exists(directory / latest_name);
  return world.all_reduce_value("look for a checkpoint", std::int32_t{is_there},
                                comm::ReduceOp::max) != 0;
}

fs::path resume_path(const comm::Communicator& world, const fs::path& path) {
  return found_by_rank_0(world, "find the latest checkpoint", [&] { return newest_in(path); });
}

fs::path model_path(const comm::Communicator& world, const fs::path& path) {
  return found_by_rank_0(world, "look for the model", [&] {
    const bool is_run = fs::exists(path / latest_name) && !fs::exists(path / "config.json");
    return is_run ? newest_in(path) : path;
  });
}

}  // namespace tessera::trainer
