// SPDX-License-Identifier: Apache-2.0
// Loading and saving against pread and pwrite of the same bytes by the same ranks, in turns;
// loading from the system's cache and, as a job's first load is, from the disk.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>

#include "base/block_distribution.hpp"
#include "base/error.hpp"
#include "base/seconds_since.hpp"
#include "bench.hpp"
#include "comm/agree.hpp"
#include "tessera/checkpoint/disk.hpp"
#include "tessera/trainer/model_state.hpp"

namespace tessera::apps {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t piece_bytes = 1 << 20;

int open_or_fail(const fs::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  if (descriptor < 0)
    fail(ErrorKind::file, "cannot open {}: {}", path.string(), std::strerror(errno));
  return descriptor;
}

/// The largest file of a checkpoint.
fs::path largest_file(const fs::path& checkpoint) {
  if (!fs::is_directory(checkpoint)) return checkpoint;
  fs::path largest;
  std::uintmax_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    if (!entry.is_regular_file() || entry.file_size() <= bytes) continue;
    bytes = entry.file_size();
    largest = entry.path();
  }
  return largest;
}

/// What is timed, with the memory for it. All members are collective over the grid's world.
class CheckpointBench {
 public:
  CheckpointBench(const comm::ProcessGrid& grid, const fs::path& path);
  ~CheckpointBench();
  CheckpointBench(const CheckpointBench&) = delete;
  CheckpointBench& operator=(const CheckpointBench&) = delete;

  void load_once();
  void save_once();
  std::vector<MachineRow> rows() const;

 private:
  /// Times `body`, all ranks starting together; an error is agreed.
  template <class Body>
  void time(const char* name, Body&& body);
  double median(const char* name) const;
  void forget_files() const;
  void read_plainly(std::span<float> stores);
  void make_plain_file();
  void write_plainly(const checkpoint::OutputFile& out) const;

  const comm::Communicator& world_;
  const comm::ProcessGrid& grid_;
  trainer::ModelSource model_;
  zero3::ParameterStore<float> store_;
  fs::path file_, saved_, plain_;
  std::int64_t own_bytes_ = 0, read_bytes_ = 0;  ///< of the checkpoint: of this rank, of all
  std::int64_t own_begin_ = 0;                   ///< where this rank reads plainly
  std::int64_t written_bytes_ = 0;               ///< of a save, by all ranks
  std::vector<std::byte> piece_;
  std::vector<float> stores_;  ///< as large as this rank's shards
  std::map<std::string, std::vector<double>> seconds_;
};

CheckpointBench::CheckpointBench(const comm::ProcessGrid& grid, const fs::path& path)
    : world_(grid.world()),
      grid_(grid),
      model_(trainer::open_model(world_, path, {})),
      store_(trainer::make_store<float>(grid, model_.config)),
      piece_(piece_bytes) {
  own_bytes_ = load_parameters(grid_, model_, store_).read_bytes;  // the cache is warm after it
  std::int64_t num_owned = 0;
  for (std::size_t i = 0; i < store_.num_units(); ++i)
    for (const Slice& slice : store_.unit(i).slices()) num_owned += slice.size();
  stores_.resize(static_cast<std::size_t>(num_owned));
  read_bytes_ = world_.all_reduce_value("bytes", own_bytes_, comm::ReduceOp::sum);
  written_bytes_ = 4 * world_.all_reduce_value("elements", num_owned, comm::ReduceOp::sum);
  const auto file_bytes = comm::agreed(world_, "look at the file", [&] {
    file_ = largest_file(model_.source->path());
    return static_cast<std::int64_t>(fs::file_size(file_));
  });
  own_begin_ = std::clamp<std::int64_t>(file_bytes / world_.size() * world_.rank(), 0,
                                        std::max<std::int64_t>(file_bytes - own_bytes_, 0));
  const auto name = fs::temp_directory_path() / fmt::format("tessera-bench-{}.h5", ::getpid());
  saved_ = world_.broadcast_string("file of the bench", name.string(), 0);
  plain_ = saved_.string() + ".plain";
}

CheckpointBench::~CheckpointBench() {
  if (world_.rank() != 0) return;
  std::error_code ignored;
  fs::remove(saved_, ignored);
  fs::remove(plain_, ignored);
}

template <class Body>
void CheckpointBench::time(const char* name, Body&& body) {
  world_.barrier("start of a repeat");
  const auto start = std::chrono::steady_clock::now();
  body();
  const double seconds = seconds_since(start);
  seconds_[name].push_back(world_.all_reduce_value("slowest rank", seconds, comm::ReduceOp::max));
}

double CheckpointBench::median(const char* name) const { return study::median(seconds_.at(name)); }

/// Drops the checkpoint from this machine's cache, as far as the system lets it.
void CheckpointBench::forget_files() const {
  comm::agreed(world_, "drop the cache", [&] {
    const fs::path& path = model_.source->path();
    std::vector<fs::path> files = {path};
    if (fs::is_directory(path)) files.assign(fs::directory_iterator(path), {});
    for (const fs::path& file : files) {
      if (!fs::is_regular_file(file)) continue;
      const int descriptor = open_or_fail(file, O_RDONLY);
      ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
      ::close(descriptor);
    }
  });
}

/// As many bytes as this rank loads, through one buffer; behind each piece its share of `stores` is
/// filled. What of a file ends before is not read.
void CheckpointBench::read_plainly(std::span<float> stores) {
  const int descriptor = open_or_fail(file_, O_RDONLY);
  const BlockDistribution pieces{std::ssize(stores), (own_bytes_ + piece_bytes - 1) / piece_bytes};
  for (std::int64_t k = 0; k < pieces.num_ranks; ++k) {
    const std::int64_t done = k * piece_bytes;
    const auto wanted = static_cast<std::size_t>(std::min(piece_bytes, own_bytes_ - done));
    if (::pread(descriptor, piece_.data(), wanted, own_begin_ + done) <= 0) break;
    std::fill(stores.begin() + pieces.begin(k), stores.begin() + pieces.end(k), 1.0f);
  }
  ::close(descriptor);
}

void CheckpointBench::load_once() {
  time("pread", [&] { read_plainly({}); });
  time("pread and stores", [&] { read_plainly(stores_); });
  time("load", [&] { load_parameters(grid_, model_, store_, {}, trainer::Verify::no); });
  time("proved load", [&] { load_parameters(grid_, model_, store_); });
  forget_files();
  time("cold pread", [&] { read_plainly({}); });
  forget_files();
  time("cold proved load", [&] { load_parameters(grid_, model_, store_); });
}

/// A fresh file with its blocks reserved, as a save has one.
void CheckpointBench::make_plain_file() {
  comm::agreed(world_, "make a file", [&] {
    if (world_.rank() != 0) return;
    fs::remove(plain_);
    const int descriptor = open_or_fail(plain_, O_WRONLY | O_CREAT | O_TRUNC);
    checkpoint::reserve_bytes(descriptor, written_bytes_);
    ::close(descriptor);
  });
}

void CheckpointBench::write_plainly(const checkpoint::OutputFile& out) const {
  const auto bytes = std::as_bytes(std::span(stores_));
  const std::int64_t begin = written_bytes_ / world_.size() / 4096 * 4096 * world_.rank();
  for (std::size_t done = 0; done < bytes.size(); done += piece_bytes)
    out.write_at(begin + static_cast<std::int64_t>(done),
                 bytes.subspan(done, std::min<std::size_t>(piece_bytes, bytes.size() - done)));
}

void CheckpointBench::save_once() {
  make_plain_file();
  std::optional<checkpoint::OutputFile> out;
  comm::agreed(world_, "open a file", [&] { out.emplace(plain_, world_.rank()); });
  time("write", [&] { write_plainly(*out); });
  time("fsync", [&] { out->flush(); });
  comm::agreed(world_, "remove a file", [&] {
    if (world_.rank() == 0) fs::remove(saved_);
  });
  time("save", [&] { save_checkpoint(grid_, store_, saved_, {}, model_); });
}

std::vector<MachineRow> CheckpointBench::rows() const {
  std::vector<MachineRow> rows;
  const auto add = [&](const char* name, const char* unit, double value) {
    rows.push_back({name, unit, {value, value, value}});
  };
  const auto add_rate = [&](const char* name, std::int64_t bytes, double seconds) {
    add(name, "GB/s", static_cast<double>(bytes) / seconds / 1e9);
  };
  add("bytes read", "GB", static_cast<double>(read_bytes_) / 1e9);
  add("bytes stored in f32 shards", "GB", static_cast<double>(written_bytes_) / 1e9);
  add_rate("plain pread", read_bytes_, median("pread"));
  add_rate("plain pread, each piece then stored as f32", read_bytes_, median("pread and stores"));
  add_rate("load, not proved", read_bytes_, median("load"));
  add_rate("load, proved by fingerprints", read_bytes_, median("proved load"));
  add("load, not proved / pread", "", median("pread") / median("load"));
  add("load, proved / pread", "", median("pread") / median("proved load"));
  add("load, not proved / pread and stores", "", median("pread and stores") / median("load"));
  add("load, proved / pread and stores", "", median("pread and stores") / median("proved load"));
  add_rate("plain pread, file dropped from the cache before", read_bytes_, median("cold pread"));
  add_rate("load, proved, file dropped from the cache before", read_bytes_,
           median("cold proved load"));
  add("load, proved / pread, file dropped from the cache before", "",
      median("cold pread") / median("cold proved load"));
  add_rate("plain write", written_bytes_, median("write"));
  add_rate("fsync of that", written_bytes_, median("fsync"));
  add_rate("save, fsync included", written_bytes_, median("save"));
  add("save / write and fsync", "", (median("write") + median("fsync")) / median("save"));
  return rows;
}

}  // namespace

std::vector<MachineRow> measure_checkpoint(const comm::ProcessGrid& grid, const fs::path& path,
                                           int num_repeats) {
  CheckpointBench bench(grid, path);
  for (int k = 0; k < num_repeats; ++k) bench.load_once();
  for (int k = 0; k < num_repeats; ++k) bench.save_once();
  return bench.rows();
}

}  // namespace tessera::apps
