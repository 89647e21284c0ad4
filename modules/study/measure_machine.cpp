// SPDX-License-Identifier: Apache-2.0
// Products, memory and messages. Files are in measure_files.cpp.
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <tessera/study/measure.hpp>

#include "base/seconds_since.hpp"
#include "comm/collectives.hpp"
#include "comm/watchdog.hpp"
#include "kernel/allocate.hpp"
#include "kernel/gemm.hpp"

namespace tessera::study {
namespace {

constexpr double giga = 1e9;

/// The best rate of squares whose operands do and do not fit into caches.
template <class T>
double product_rate(const comm::Communicator& world, int num_repeats) {
  const kernel::Execution execution;
  double best = 0.0;
  for (const std::int64_t n : {512, 1024, 2048}) {
    const auto a = kernel::allocate_zeros<kernel::Matrix<T>>("a", n, n);
    const auto b = kernel::allocate_zeros<kernel::Matrix<T>>("b", n, n);
    const auto c = kernel::allocate_zeros<kernel::Matrix<float>>("c", n, n);
    const kernel::Matrix<const T> a_in = a, b_in = b;
    const double seconds = best_seconds(world, num_repeats, [&] {
      kernel::gemm<T, float>(execution, kernel::operand(a_in), kernel::operand(b_in),
                             kernel::operand(c));
    });
    best = std::max(best, 2.0 * static_cast<double>(n * n * n) / seconds);
  }
  return best;
}

/// Bytes of one of the three arrays: together four times the last cache, which ranks may share.
std::int64_t triad_array_bytes() {
  const long cache = ::sysconf(_SC_LEVEL3_CACHE_SIZE);
  return std::clamp<std::int64_t>(cache * 4 / 3, 64 << 20, 512 << 20);
}

struct Triad {
  kernel::Vector<float> a, b, c;
  kernel::Execution execution;

  explicit Triad(std::int64_t n) : a("a", n), b("b", n), c("c", n) {}
  void run() const {
    const auto x = a, y = b, z = c;
    Kokkos::parallel_for(
        "triad", kernel::Range(execution, 0, static_cast<std::int64_t>(x.extent(0))),
        KOKKOS_LAMBDA(std::int64_t i) { x(i) += y(i) * z(i); });
  }
  double bytes() const { return 4.0 * 4.0 * static_cast<double>(a.extent(0)); }
};

/// Three arrays read and one of them written: unlike a store to memory that was not read, an update
/// moves no more than it is counted for.
double triad_rate(const Triad& triad, const comm::Communicator& world, int num_repeats,
                  bool takes_part) {
  const double seconds = best_seconds(world, num_repeats, [&] {
    if (takes_part) triad.run();
  });
  return triad.bytes() / seconds;
}

/// Half the time of messages there and back between two ranks [s], on both of them.
double ping_pong_seconds(const comm::Communicator& world, int first, int second,
                         std::vector<char>& message, int num_rounds) {
  const int rank = world.rank(), other = rank == first ? second : first;
  const int count = static_cast<int>(message.size());
  const auto turn = [&](bool sends) {
    comm::check_mpi(
        sends ? MPI_Send(message.data(), count, MPI_CHAR, other, 0, world.mpi())
              : MPI_Recv(message.data(), count, MPI_CHAR, other, 0, world.mpi(), MPI_STATUS_IGNORE),
        sends ? "MPI_Send" : "MPI_Recv");
  };
  double start = 0.0;
  for (int i = -1; i < num_rounds; ++i) {  // the first one opens the connection
    if (i == 0) start = MPI_Wtime();
    turn(rank == first);
    turn(rank == second);
  }
  return (MPI_Wtime() - start) / (2.0 * num_rounds);
}

/// All pairs; beyond that many ranks rank 0 with each.
std::vector<std::pair<int, int>> pairs_of(int num_ranks) {
  constexpr int max_ranks_for_all = 8;
  std::vector<std::pair<int, int>> pairs;
  for (int i = 0; i < num_ranks; ++i) {
    for (int j = i + 1; j < num_ranks; ++j) {
      if (i == 0 || num_ranks <= max_ranks_for_all) pairs.emplace_back(i, j);
    }
  }
  return pairs;
}

OverRanks summarize(const std::vector<double>& values) {
  OverRanks result{values.front(), 0.0, values.front()};
  for (const double value : values) {
    result.min = std::min(result.min, value);
    result.max = std::max(result.max, value);
    result.mean += value / static_cast<double>(values.size());
  }
  return result;
}

/// One pair after the other. Seconds of a message of `size` bytes, over pairs.
std::vector<double> message_seconds(const comm::Communicator& world, std::size_t size,
                                    int num_rounds) {
  const comm::Phase phase("ping-pong", world.options().deadline);
  std::vector<char> message(size);
  std::vector<double> seconds;
  for (const auto& [first, second] : pairs_of(world.size())) {
    const bool takes_part = world.rank() == first || world.rank() == second;
    double mine = 0.0;
    if (takes_part) mine = ping_pong_seconds(world, first, second, message, num_rounds);
    seconds.push_back(world.all_reduce_value("ping-pong", mine, comm::ReduceOp::max));
  }
  return seconds;
}

void measure_messages(const comm::Communicator& world, MachineReport& report) {
  if (world.size() == 1) return;
  constexpr std::size_t large = 4 << 20;
  std::vector<double> latency = message_seconds(world, 8, 100);
  std::vector<double> rate = message_seconds(world, large, 10);
  for (double& value : latency) value *= 1e6;
  for (double& value : rate) value = static_cast<double>(large) / value / giga;
  report.rows.push_back({"message latency, 8 B, pairs of ranks", "us", summarize(latency)});
  report.rows.push_back({"message rate, 4 MiB, pairs of ranks", "GB/s", summarize(rate)});
  report.roofs.message = report.rows.back().value.mean * giga;
}

}  // namespace

std::vector<double> sample_seconds(const comm::Communicator& world, int num_repeats,
                                   const std::function<void()>& body) {
  std::vector<double> seconds;
  for (int i = -1; i < num_repeats; ++i) {  // the first one allocates and compiles
    Kokkos::fence();
    world.barrier("start of a repeat");
    const auto start = std::chrono::steady_clock::now();
    body();
    Kokkos::fence();
    if (i < 0) continue;
    seconds.push_back(seconds_since(start));
  }
  return seconds;
}

double median(std::vector<double> samples) {
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

double median_seconds(const comm::Communicator& world, int num_repeats,
                      const std::function<void()>& body) {
  return median(sample_seconds(world, num_repeats, body));
}

double best_seconds(const comm::Communicator& world, int num_repeats,
                    const std::function<void()>& body) {
  double best = median_seconds(world, 1, body);
  for (int i = 1; i < num_repeats; ++i) best = std::min(best, median_seconds(world, 1, body));
  return best;
}

std::vector<double> sample_triad(const comm::Communicator& world, int num_repeats) {
  const Triad triad(triad_array_bytes() / 4);
  std::vector<double> rates;
  for (const double seconds : sample_seconds(world, num_repeats, [&] { triad.run(); })) {
    rates.push_back(triad.bytes() / seconds);
  }
  return rates;
}

MachineReport measure_machine(const comm::Communicator& world, int num_repeats) {
  MachineReport report;
  const auto add = [&](const std::string& name, const char* unit, double rate) {
    report.rows.push_back({name, unit, trainer::over_ranks(world, rate / giga)});
  };
  const RegisterRates registers = measure_registers(world, num_repeats);
  report.roofs.f32_registers = registers.f32;
  report.roofs.bf16_registers = registers.bf16;
  add("f32 multiply-add, registers (" + registers.f32_instructions + ")", "GFLOP/s", registers.f32);
  add("bf16 multiply-add, registers (" + registers.bf16_instructions + ")", "GFLOP/s",
      registers.bf16);
  report.roofs.f32_product = product_rate<float>(world, num_repeats);
  add("f32 product, best square by oneDNN", "GFLOP/s", report.roofs.f32_product);
  report.roofs.bf16_product = product_rate<bf16>(world, num_repeats);
  add(fmt::format("bf16 product, best square by {}", kernel::bf16_product_backend()), "GFLOP/s",
      report.roofs.bf16_product);
  {
    const Triad triad(triad_array_bytes() / 4);
    const bool is_first = world.rank() == 0;
    const double alone = triad_rate(triad, world, num_repeats, is_first);
    const double of_first =
        world.all_reduce_value("triad", is_first ? alone : 0.0, comm::ReduceOp::max);
    add("memory triad, one rank alone", "GB/s", of_first);
    report.roofs.memory = triad_rate(triad, world, num_repeats, true);
    add("memory triad, all ranks at once", "GB/s", report.roofs.memory);
  }
  measure_messages(world, report);
  return report;
}

}  // namespace tessera::study
