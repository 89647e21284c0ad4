// SPDX-License-Identifier: Apache-2.0
// Tessera files moved by parallel HDF5, collectively or not, and directly: one file, three ways.
#include "hdf5_transfer.hpp"

#include <cstdlib>
#include <mutex>

#include "base/log.hpp"
#include "hdf5_fixture.hpp"
#include "same_error.hpp"
#include "support/temporary_directory.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using comm::ProcessGrid;
using test::Checkpoint;

namespace {

constexpr TransferMode modes[] = {TransferMode::collective, TransferMode::independent,
                                  TransferMode::direct};

}  // namespace

TEST_CASE("what one way of transfer writes, every way reads bit for bit, on every grid") {
  Checkpoint checkpoint;
  checkpoint.mxfp4 = test::mxfp4_unit();
  for (const TransferMode writing : modes) {
    const ProcessGrid writers(MPI_COMM_WORLD, {test::expert_axes().back()});
    const test::TemporaryDirectory directory(writers.world());
    checkpoint.save(writers, directory / "model.h5", writing);
    for (const TransferMode reading : modes) {
      const ProcessGrid readers(MPI_COMM_WORLD, {1});
      LoadReport report;
      CHECK(checkpoint.compare(readers, directory / "model.h5", report, {}, reading) == "");
      CHECK(report.planned_bytes == report.read_bytes);
    }
  }
}

TEST_CASE("by HDF5, too, memory stays within its bound with ranks in need of unequal rounds") {
  const Checkpoint checkpoint;
  const ProcessGrid grid(MPI_COMM_WORLD, {test::expert_axes().back()});
  const test::TemporaryDirectory directory(grid.world());
  checkpoint.save(grid, directory / "model.h5", TransferMode::collective);
  for (const std::int64_t buffer_bytes : {1000, 50000}) {
    for (const TransferMode mode : {TransferMode::collective, TransferMode::independent}) {
      LoadReport report;
      CHECK(checkpoint.compare(grid, directory / "model.h5", report, {buffer_bytes}, mode) == "");
      CHECK(report.peak_buffer_bytes <= buffer_bytes);
      CHECK(report.peak_buffer_bytes > 0);
    }
  }
}

TEST_CASE("fingerprints of what is read are the same whichever way it came") {
  const Checkpoint checkpoint;
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  checkpoint.save(grid, directory / "model.h5");
  std::vector<Fingerprint> sums;
  for (const TransferMode mode : modes) {
    for (const bool of_shards : {false, true}) {
      FingerprintTable table;
      LoadOptions options;
      (of_shards ? options.placed : options.fingerprints) = &table;
      LoadReport report;
      CHECK(checkpoint.compare(grid, directory / "model.h5", report, options, mode) == "");
      table.sum(grid.world());
      sums.push_back(fingerprint_of(table));
    }
  }
  for (const Fingerprint& sum : sums) CHECK(sum == sums.front());
}

TEST_CASE("collective transfers are really collective") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  std::mutex mutex;
  std::vector<std::string> messages;
  set_log_sink([&](LogLevel, const std::string& text) {
    const std::lock_guard lock(mutex);
    messages.push_back(text);
  });
  set_log_level(LogLevel::debug);
  const Checkpoint checkpoint;
  checkpoint.save(grid, directory / "model.h5", TransferMode::collective);
  LoadReport report;
  checkpoint.compare(grid, directory / "model.h5", report, {}, TransferMode::collective);
  set_log_level(LogLevel::info);
  set_log_sink({});
  if (grid.world().rank() != 0) return;
  std::size_t transfers = 0;
  for (const std::string& text : messages) {
    if (!text.starts_with("wrote ") && !text.starts_with("read ")) continue;
    ++transfers;
    CHECK_THAT(text, Catch::EndsWith("contiguous collective"));
  }
  CHECK(transfers == 8);
}

TEST_CASE("transfers are direct on one node unless rank 0's environment names another way") {
  const comm::Communicator world(MPI_COMM_WORLD, "world");
  CHECK(resolved(world, TransferMode::automatic) == TransferMode::direct);
  CHECK(resolved(world, TransferMode::independent) == TransferMode::independent);
  if (world.rank() == 0) setenv("TESSERA_HDF5_TRANSFER", "collective", 1);
  CHECK(resolved(world, TransferMode::automatic) == TransferMode::collective);
  if (world.rank() == 0) setenv("TESSERA_HDF5_TRANSFER", "fast", 1);
  CHECK_THROWS_WITH(resolved(world, TransferMode::automatic),
                    Catch::Contains("TESSERA_HDF5_TRANSFER is 'fast'"));
  unsetenv("TESSERA_HDF5_TRANSFER");
}
