// SPDX-License-Identifier: Apache-2.0
#include "tessera/trainer/metrics.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "comm/agree.hpp"

namespace tessera::trainer {
namespace {

// Lines of steps that will be done again, and a line cut off by a crash, are left out.
std::string lines_to_keep(const std::filesystem::path& path, std::int64_t last_step) {
  std::ifstream file(path);
  std::string kept, line;
  while (std::getline(file, line)) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    if (json["step"].get<std::int64_t>() <= last_step) kept += line + '\n';
  }
  return kept;
}

void write_beside_and_rename(const std::filesystem::path& path, const std::string& content) {
  const std::filesystem::path temporary = path.string() + ".tmp";
  std::ofstream file(temporary, std::ios::binary);
  file << content;
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(temporary, path, error);
  if (!file || error) {
    const std::string reason = error ? error.message() : std::string(std::strerror(errno));
    std::filesystem::remove(temporary, error);
    fail(ErrorKind::file, "cannot rewrite {}: {}", path.string(), reason);
  }
}

/// The number after `name` in a file of the kernel's, which has it in KiB; 0 without one.
double mib_of(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  while (file >> word) {
    double kib = 0.0;
    if (word == name && file >> kib) return kib / 1024.0;
  }
  return 0.0;
}

}  // namespace

std::string to_json_line(const StepMetrics& metrics) {
  nlohmann::ordered_json line{{"step", metrics.step},
                              {"loss", metrics.loss},
                              {"grad_norm", metrics.grad_norm},
                              {"lr", metrics.learning_rate},
                              {"step_s", metrics.step_s},
                              {"tokens_per_s", metrics.tokens_per_s},
                              {"peak_rss_mib", metrics.peak_rss_mib},
                              {"expert_load", metrics.expert_load}};
  if (metrics.dropped) line["dropped"] = true;
  if (metrics.aux_loss) line["aux_loss"] = *metrics.aux_loss;
  if (metrics.eval_loss) line["eval_loss"] = *metrics.eval_loss;
  return line.dump();
}

double peak_rss_mib() { return mib_of("/proc/self/status", "VmHWM:"); }
double proportional_set_mib() { return mib_of("/proc/self/smaps_rollup", "Pss:"); }

MetricsWriter::MetricsWriter(const comm::Communicator& world, std::filesystem::path path,
                             std::int64_t resumed_step)
    : path_(std::move(path)) {
  comm::agreed(world, "open metrics", [&] {
    if (world.rank() != 0) return;
    const std::string kept = resumed_step > 0 ? lines_to_keep(path_, resumed_step) : std::string();
    if (!kept.empty()) write_beside_and_rename(path_, kept);
    const int discard = kept.empty() ? O_TRUNC : 0;
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | discard, 0666);
    if (descriptor_ < 0) {
      fail(ErrorKind::file, "cannot open {} for the metrics: {}", path_.string(),
           std::strerror(errno));
    }
    offset_ = static_cast<std::int64_t>(kept.size());
  });
}

MetricsWriter::~MetricsWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MetricsWriter::write(const StepMetrics& metrics) {
  if (descriptor_ < 0) return;
  pending_ += to_json_line(metrics) + '\n';
  flush_pending();
}

void MetricsWriter::flush_pending() {
  std::size_t done = 0;
  while (done < pending_.size()) {
    const ssize_t count = ::pwrite(descriptor_, pending_.data() + done, pending_.size() - done,
                                   offset_ + static_cast<std::int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    done += static_cast<std::size_t>(count);
  }
  if (done == pending_.size()) {
    offset_ += static_cast<std::int64_t>(done);
    pending_.clear();
    warned_ = false;
    return;
  }
  const int reason = errno;
  // A line written in part would be read as a broken one; the next try writes at the same offset.
  [[maybe_unused]] const int truncated = ::ftruncate(descriptor_, offset_);
  if (!warned_) {
    log_warning("cannot write {}: {}; its lines are kept in memory and tried again with each step",
                path_.string(), std::strerror(reason));
  }
  warned_ = true;
}

void MetricsWriter::finish(const comm::Communicator& world) {
  comm::agreed(world, "finish metrics", [&] {
    if (descriptor_ < 0) return;
    flush_pending();
    if (!pending_.empty()) {
      fail(ErrorKind::file,
           "{}: its last {} bytes could not be written; free space on that file system",
           path_.string(), pending_.size());
    }
  });
}

}  // namespace tessera::trainer
