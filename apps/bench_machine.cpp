// SPDX-License-Identifier: Apache-2.0
// What the machine reaches, in the same run as the kernels that are held against it. Files are in
// bench_files.cpp.
#include <mpi.h>
#include <unistd.h>

#include <algorithm>

#include "bench.hpp"
#include "comm/collectives.hpp"
#include "comm/watchdog.hpp"
#include "kernel/gemm.hpp"

namespace tessera::apps {
namespace {

constexpr double giga = 1e9;

/// The shortest of several times: a roof is what can be reached. collective over world.
double best_seconds(const comm::Communicator& world, int num_repeats,
                    const std::function<void()>& body) {
  double best = median_seconds(world, 1, body);
  for (int i = 1; i < num_repeats; ++i) best = std::min(best, median_seconds(world, 1, body));
  return best;
}

#if defined(__AVX512F__)
constexpr int lane_bytes = 64;
#elif defined(__AVX__)
constexpr int lane_bytes = 32;
#else
constexpr int lane_bytes = 16;
#endif
typedef float Lanes __attribute__((vector_size(lane_bytes)));

/// Multiplications and additions on registers alone, in twelve chains that do not wait for one
/// another. `start` must be unknown to the compiler; the result depends on all chains.
float multiply_add(std::int64_t num_rounds, float start) {
  const Lanes zero{};
  Lanes a0 = zero + start, a1 = a0 + 1.0f, a2 = a0 + 2.0f, a3 = a0 + 3.0f, a4 = a0 + 4.0f,
        a5 = a0 + 5.0f, a6 = a0 + 6.0f, a7 = a0 + 7.0f, a8 = a0 + 8.0f, a9 = a0 + 9.0f,
        a10 = a0 + 10.0f, a11 = a0 + 11.0f;
  const Lanes factor = zero + 0.999f, term = zero + 0.001f;
  for (std::int64_t i = 0; i < num_rounds; ++i) {
    a0 = a0 * factor + term, a1 = a1 * factor + term, a2 = a2 * factor + term;
    a3 = a3 * factor + term, a4 = a4 * factor + term, a5 = a5 * factor + term;
    a6 = a6 * factor + term, a7 = a7 * factor + term, a8 = a8 * factor + term;
    a9 = a9 * factor + term, a10 = a10 * factor + term, a11 = a11 * factor + term;
  }
  const Lanes sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;
  return sum[0];
}

double multiply_add_rate(const comm::Communicator& world, int num_repeats) {
  constexpr std::int64_t num_rounds = 1 << 22;
  volatile float start = 0.5f, sink = 0.0f;
  const double seconds =
      best_seconds(world, num_repeats, [&] { sink = multiply_add(num_rounds, start); });
  return 12.0 * 2.0 * (lane_bytes / 4) * static_cast<double>(num_rounds) / seconds;
}

/// The best rate of squares whose operands do and do not fit into caches.
template <class T>
double product_rate(const comm::Communicator& world, int num_repeats) {
  const kernel::Execution execution;
  double best = 0.0;
  for (const std::int64_t n : {512, 1024, 2048}) {
    const kernel::Matrix<T> a("a", n, n), b("b", n, n);
    const kernel::Matrix<float> c("c", n, n);
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

MachineReport measure_machine(const comm::Communicator& world, int num_repeats) {
  MachineReport report;
  const auto add = [&](const std::string& name, const char* unit, double rate) {
    report.rows.push_back({name, unit, trainer::over_ranks(world, rate / giga)});
  };
  add("f32 multiply-add, registers", "GFLOP/s", multiply_add_rate(world, num_repeats));
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

}  // namespace tessera::apps
