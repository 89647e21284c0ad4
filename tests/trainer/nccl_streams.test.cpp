// SPDX-License-Identifier: Apache-2.0
// What of a step's communication can go on beside its kernels: from the order in which work is
// given to the streams and what waits for what, as NCCL's double and Kokkos Tools record it. With
// TESSERA_STREAMS_FILE rank 0 writes the step for share/doc/step_streams.sh to draw.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <map>
#include <numeric>
#include <tessera/trainer/batch_reader.hpp>
#include <tessera/trainer/model_state.hpp>
#include <tessera/trainer/train_step.hpp>

#include "nccl_double.hpp"

namespace tessera::trainer {
namespace {

using nccl_double::Record;
using Kind = Record::Kind;

/// One step, after one that is not recorded. DeepSeek-V3 has dense layers, experts, shared experts.
std::vector<Record> recorded_step(nccl_double::Synchronisations& waits) {
  setenv("TESSERA_COLLECTIVES", "nccl", 1);
  const auto path = std::filesystem::path(TESSERA_GOLDEN_DIRECTORY) / "deepseek_v3";
  const comm::ProcessGrid grid(MPI_COMM_WORLD, {2});
  ModelSource source = open_model(grid.world(), path, {});
  auto store = make_store<bf16>(grid, source.config);
  load_parameters(grid, source, store, {}, Verify::no);
  model::Transformer<bf16> model(grid, source.config, store);
  const TokenData data = TokenData::open(grid.world(), path / "tokens.npy", {});
  const BatchReader reader(grid.world(), data, source.config.vocab_size, 0);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(data.num_sequences()));
  std::iota(rows.begin(), rows.end(), 0);
  const StepBatches read = reader.read(rows);
  for (int step = 1; step <= 2; ++step) {
    nccl_double::set_recording(step == 2);
    nccl_double::reset_synchronisations();
    StepOptions options;
    options.optimizer_step = step;
    train_step(grid, model, store, std::span<const model::Batch>(read.batches), {}, options);
  }
  waits = nccl_double::synchronisations();  // before the model's memory is given back
  nccl_double::set_recording(false);
  return nccl_double::take_records();
}

/// Kernels that were given to the compute stream after a collective was given to its own, and
/// before the compute stream waits for it.
std::int64_t kernels_beside(const std::vector<Record>& records, std::size_t collective) {
  const int stream = records[collective].stream;
  std::int64_t end = -1;  // position of the event that marks its end
  std::int64_t count = 0;
  for (std::size_t i = collective + 1; i < records.size(); ++i) {
    const Record& next = records[i];
    if (end < 0 && next.kind == Kind::record && next.stream == stream) end = next.position;
    if (next.kind == Kind::kernel) ++count;
    const bool is_wait = next.kind == Kind::wait && next.stream == 0;
    if (is_wait && next.other_stream == stream && next.other_position == end) return count;
  }
  return -1;
}

struct Counts {
  std::int64_t all = 0;
  std::int64_t beside_kernels = 0;
  std::int64_t never_waited_for = 0;
};

Counts count(const std::vector<Record>& records, const std::string& name) {
  Counts counts;
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (records[i].kind != Kind::collective || !records[i].name.starts_with(name)) continue;
    const std::int64_t kernels = kernels_beside(records, i);
    ++counts.all;
    if (kernels > 0) ++counts.beside_kernels;
    if (kernels < 0) ++counts.never_waited_for;
  }
  return counts;
}

/// Places the work in time as a device would that is given it at once: kernels last as long as here
/// on the host, collectives 5 us and what 0.5 GB/s need, copies 2 us. Lines: kind, stream, begin
/// and end in us.
void write_timeline(const std::vector<Record>& records, const std::string& path) {
  std::map<int, double> now_us;
  std::map<std::pair<int, std::int64_t>, double> events_us;
  std::ofstream file(path);
  for (const Record& record : records) {
    double& now = now_us[record.stream];
    const double begin = now;
    switch (record.kind) {
      case Kind::record: events_us[{record.stream, record.position}] = now; continue;
      case Kind::wait: {
        const auto event = events_us.find({record.other_stream, record.other_position});
        if (event == events_us.end() || event->second <= now) continue;
        if (record.stream == 0) {
          file << "wait " << record.other_stream << ' ' << event->second << ' ' << event->second
               << '\n';
        }
        now = event->second;
        continue;
      }
      case Kind::kernel: now += record.seconds * 1e6; break;
      case Kind::collective: now += 5.0 + static_cast<double>(record.bytes) / 500.0; break;
      case Kind::copy: now += 2.0; break;
    }
    const char* kind = record.kind == Kind::kernel           ? "kernel"
                       : record.kind == Kind::copy           ? "copy"
                       : record.name.starts_with("ncclAllG") ? "gather"
                       : record.name.starts_with("ncclRed")  ? "reduce"
                                                             : "rows";
    file << kind << ' ' << record.stream << ' ' << begin << ' ' << now << '\n';
  }
}

}  // namespace

TEST_CASE("Gathers, sums of gradients and rows of tokens travel beside kernels", "[nccl]") {
  nccl_double::Synchronisations waits;
  const std::vector<Record> records = recorded_step(waits);
  const Counts gathers = count(records, "ncclAllGather");
  const Counts sums = count(records, "ncclReduceScatter");
  const Counts rows = count(records, "ncclSend"), received = count(records, "ncclRecv");
  CAPTURE(gathers.all, gathers.beside_kernels, sums.all, sums.beside_kernels, rows.all,
          rows.beside_kernels);
  // All but the first gather of the pass and those before the head, whose unit is needed at once.
  CHECK(gathers.all >= 10);
  CHECK(gathers.beside_kernels >= gathers.all - 3);
  CHECK(sums.all >= 5);
  CHECK(sums.beside_kernels >= sums.all - 1);  // the last has nothing after it
  // Outputs return beside the shared experts, their gradients beside the router's.
  CHECK(2 * (rows.beside_kernels + received.beside_kernels) >= rows.all + received.all);
  CHECK(gathers.never_waited_for + sums.never_waited_for + rows.never_waited_for == 0);
  CHECK(waits.device == 0);
  CHECK(waits.stream == 0);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const char* path = std::getenv("TESSERA_STREAMS_FILE");
  if (rank == 0 && path != nullptr) write_timeline(records, path);
}

}  // namespace tessera::trainer
