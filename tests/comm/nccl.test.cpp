// SPDX-License-Identifier: Apache-2.0
// Collectives on device memory by NCCL, on its double, through pinned host buffers, and by MPI with
// device addresses: each gives what MPI gives on host memory, to the bit, on all axes of a grid and
// in the order of streams.
#include <Kokkos_Core.hpp>
#include <catch2/catch.hpp>
#include <numeric>
#include <random>

#include "comm/collectives_staged.hpp"
#include "comm/process_grid.hpp"
#include "nccl_double.hpp"
#include "support/collective_check.hpp"

using namespace tessera;
using namespace tessera::comm;

namespace {

/// All that can carry device memory, MPI with its addresses included.
std::vector<const char*> transports() {
  provide_device_collectives(DeviceTransport::mpi, direct_factory());
  return {"nccl", "staged", "mpi"};
}

void choose(const char* transport) { setenv("TESSERA_COLLECTIVES", transport, 1); }

ProcessGrid grid_of(int expert) { return ProcessGrid(MPI_COMM_WORLD, {expert}); }

template <class T>
std::vector<T> random_values(std::size_t count, int seed) {
  std::mt19937 generator(static_cast<unsigned>(seed));
  std::normal_distribution<float> normal;
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(8.0f * normal(generator));
  return values;
}

// What a kernel sees now; the host by itself would see what is there before the collective.
template <class T>
std::vector<T> seen_by_kernel(const std::vector<T>& data) {
  std::vector<T> copy(data.size());
  const T* from = data.data();
  T* to = copy.data();
  Kokkos::parallel_for(
      "look", Kokkos::RangePolicy<Kokkos::DefaultExecutionSpace>(0, static_cast<int>(data.size())),
      KOKKOS_LAMBDA(const int i) { to[i] = from[i]; });
  return copy;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

const Communicator& axis_of(const ProcessGrid& grid, int idx) {
  return idx == 0 ? grid.world() : idx == 1 ? grid.expert() : grid.replica();
}

// Every axis of every grid of this number of ranks, by each transport.
template <class Check>
void on_all_axes(const Check& check) {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (const char* transport : transports()) {
    choose(transport);
    for (int expert = 1; expert <= size; ++expert) {
      if (size % expert != 0) continue;
      const ProcessGrid grid = grid_of(expert);
      for (int idx = 0; idx < 3; ++idx) {
        INFO(grid.describe() << ", axis " << axis_of(grid, idx).name());
        CHECK(axis_of(grid, idx).has_device_collectives());
        check(axis_of(grid, idx));
      }
    }
  }
  choose("nccl");
}

}  // namespace

TEMPLATE_TEST_CASE("Device memory is gathered as host memory is", "[nccl]", float, bf16,
                   std::uint8_t) {
  on_all_axes([](const Communicator& axis) {
    const auto ranks = static_cast<std::size_t>(axis.size());
    for (const std::size_t count : {0u, 7u, 3000u}) {
      const auto mine = random_values<TestType>(count, axis.rank());
      std::vector<TestType> all(count * ranks), expected(count * ranks);
      axis.all_gather("by MPI", std::span<const TestType>(mine), std::span(expected));
      axis.start_all_gather(compute_stream(), "on the device", std::span<const TestType>(mine),
                            std::span(all))
          .wait();
      CHECK(same_bits(seen_by_kernel(all), expected));

      std::vector<TestType> in_place(count * ranks);
      const auto own =
          std::span(in_place).subspan(static_cast<std::size_t>(axis.rank()) * count, count);
      std::copy(mine.begin(), mine.end(), own.begin());
      axis.start_all_gather(compute_stream(), "in place", std::span<const TestType>(own),
                            std::span(in_place))
          .wait();
      CHECK(same_bits(seen_by_kernel(in_place), expected));
    }
  });
}

TEST_CASE("Blocks that lie apart are gathered, and what is between them stays", "[nccl]") {
  on_all_axes([](const Communicator& axis) {
    const std::int64_t count = 5, stride = 8;
    std::vector<float> all(static_cast<std::size_t>(stride * axis.size()), -1.0f);
    const auto mine = random_values<float>(static_cast<std::size_t>(count), axis.rank());
    std::copy(mine.begin(), mine.end(), all.begin() + axis.rank() * stride);
    std::vector<float> expected = all;
    axis.start_all_gather_strided("by MPI", expected.data(), count, stride).wait();
    axis.start_all_gather_strided(compute_stream(), "on the device", all.data(), count, stride)
        .wait();
    CHECK(same_bits(seen_by_kernel(all), expected));
  });
}

TEMPLATE_TEST_CASE("Device memory is summed in rank order, as host memory is", "[nccl]", float,
                   bf16, double, std::int64_t) {
  on_all_axes([](const Communicator& axis) {
    const std::size_t count = 1000;
    const auto all = random_values<TestType>(count * static_cast<std::size_t>(axis.size()),
                                             axis.world_ranks()[0] + 10 * axis.rank());
    std::vector<TestType> mine(count), expected(count);
    axis.reduce_scatter("by MPI", std::span<const TestType>(all), std::span(expected));
    axis.start_reduce_scatter(compute_stream(), "on the device", std::span<const TestType>(all),
                              std::span(mine))
        .wait();
    CHECK(same_bits(seen_by_kernel(mine), expected));
  });
}

TEST_CASE("Device memory is reduced and broadcast, and streams meet", "[nccl]") {
  on_all_axes([](const Communicator& axis) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
      std::vector<std::int64_t> data{axis.rank() + 1, -axis.rank(), 7}, expected = data;
      axis.all_reduce("by MPI", std::span(expected), op);
      axis.start_all_reduce(compute_stream(), "on the device", std::span(data), op).wait();
      CHECK(seen_by_kernel(data) == expected);
    }
    std::vector<float> data(9, static_cast<float>(axis.rank()));
    const int root = axis.size() - 1;
    axis.start_broadcast(compute_stream(), "from the last", std::span(data), root).wait();
    CHECK(seen_by_kernel(data) == std::vector<float>(9, static_cast<float>(root)));
    axis.start_barrier(compute_stream(), "meet").wait();
  });
}

TEST_CASE("Rows of any number are exchanged, none included", "[nccl]") {
  on_all_axes([](const Communicator& axis) {
    const auto ranks = static_cast<std::size_t>(axis.size());
    std::vector<std::int64_t> send_counts(ranks), receive_counts(ranks);
    for (std::size_t r = 0; r < ranks; ++r) {
      // Rank 1 sends to nobody, and nobody to rank 2.
      const auto rows = [](std::size_t from, std::size_t to) {
        return from == 1 || to == 2 ? 0
                                    : static_cast<std::int64_t>((1 + 3 * from + 5 * to) % 7 * 100);
      };
      send_counts[r] = rows(static_cast<std::size_t>(axis.rank()), r);
      receive_counts[r] = rows(r, static_cast<std::size_t>(axis.rank()));
    }
    const auto total = [](const std::vector<std::int64_t>& counts) {
      return static_cast<std::size_t>(
          std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    };
    const auto sent = random_values<bf16>(total(send_counts), axis.rank());
    std::vector<bf16> received(total(receive_counts)), expected(total(receive_counts));
    axis.all_to_all_v("by MPI", std::span<const bf16>(sent),
                      std::span<const std::int64_t>(send_counts), std::span(expected),
                      std::span<const std::int64_t>(receive_counts));
    axis.start_all_to_all_v(compute_stream(), "on the device", std::span<const bf16>(sent),
                            std::span<const std::int64_t>(send_counts), std::span(received),
                            std::span<const std::int64_t>(receive_counts))
        .wait();
    CHECK(same_bits(seen_by_kernel(received), expected));
  });
}

TEST_CASE("A kernel finds a result after wait(), not before, and the host is never kept",
          "[nccl]") {
  const ProcessGrid grid = grid_of(1);
  const Communicator& world = grid.world();
  if (world.size() == 1) return;
  const std::vector<float> mine(4, static_cast<float>(world.rank()));
  std::vector<float> all(4 * static_cast<std::size_t>(world.size()), 0.0f);
  nccl_double::reset_synchronisations();
  Request request = world.start_all_gather(compute_stream(), "late", std::span<const float>(mine),
                                           std::span(all));
  const std::vector<float> before = seen_by_kernel(all);
  CHECK(std::isnan(before[4 * static_cast<std::size_t>((world.rank() + 1) % world.size())]));
  request.wait();
  const std::vector<float> after = seen_by_kernel(all);
  for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i] == static_cast<float>(i / 4));
  CHECK(nccl_double::synchronisations().device == 0);
  CHECK(nccl_double::synchronisations().stream == 0);
}

TEST_CASE("The volume of device collectives is counted like any other", "[nccl]") {
  choose("nccl");
  const ProcessGrid grid = grid_of(1);
  const Communicator& world = grid.world();
  const Traffic before = world.traffic();
  const std::vector<float> mine(100);
  std::vector<float> all(100 * static_cast<std::size_t>(world.size()));
  world.start_all_gather(compute_stream(), "counted", std::span<const float>(mine), std::span(all))
      .wait();
  seen_by_kernel(all);
  Traffic brought = world.traffic();
  brought -= before;
  CHECK(brought.all_gather.moved_bytes == 400 * (world.size() - 1));
}

TEST_CASE("TESSERA_COLLECTIVES is refused where it names nothing, or nothing that is there") {
  choose("nccl");
  CHECK(device_transport() == DeviceTransport::nccl);
  CHECK(describe_device_transport().starts_with("NCCL 2."));
  setenv("TESSERA_COLLECTIVES", "carrier pigeon", 1);
  CHECK_THROWS_AS(device_transport(), Error);
  unsetenv("TESSERA_COLLECTIVES");
  CHECK(device_transport() == DeviceTransport::mpi);
}
